use crate::DType;
use std::fmt;

/// Up to four dimensions, printed as `[2, 41, 96]`. Longer shapes keep their first four.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// The sizes of the dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of elements, or `None` where it does not fit a `usize`.
    pub fn elements(&self) -> Option<usize> {
        self.dims().iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        let rank = dims.len().min(4);
        let mut shape = Shape { dims: [0; 4], rank };
        shape.dims[..rank].copy_from_slice(&dims[..rank]);
        shape
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(dims: [usize; R]) -> Self {
        Shape::from(&dims[..])
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// What can be wrong with tensors, scan arguments and plans. Every variant names the thing at fault.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than its use needs.
    Shape {
        /// Which tensor, by its name in the contract.
        tensor: &'static str,
        /// The shape that was needed.
        expected: Shape,
        /// The shape that was found.
        actual: Shape,
    },
    /// A layout reaches past the end of its storage, or its size overflows.
    OutOfBounds {
        /// Elements that the layout needs; `None` where the number overflows.
        needed: Option<usize>,
        /// Elements that the storage has.
        available: usize,
    },
    /// A mutable layout names some element twice.
    Overlapping {
        /// The shape of the layout.
        shape: Shape,
        /// Its strides, in elements.
        strides: Shape,
    },
    /// A slice or a permutation that the shape does not have.
    Slice {
        /// The dimension that was cut.
        dim: usize,
        /// First index.
        start: usize,
        /// One past the last index.
        end: usize,
        /// The shape that was cut.
        shape: Shape,
    },
    /// The dimensions named are not a permutation of all of them.
    Permutation {
        /// The order that was asked for.
        order: Shape,
    },
    /// A tensor holds other elements than its use needs.
    DType {
        /// The type that was needed.
        expected: DType,
        /// The type that was found.
        actual: DType,
    },
    /// More than four dimensions.
    Rank {
        /// How many there were.
        rank: usize,
    },
    /// A kernel needs the last dimension of this tensor to be contiguous.
    NotContiguous {
        /// Which tensor.
        tensor: &'static str,
    },
    /// A value outside what the mathematics allows.
    Value {
        /// Which tensor or option.
        tensor: &'static str,
        /// Its index, counted over the elements in order.
        index: usize,
        /// The value found.
        value: f64,
        /// What is allowed, as in "a finite number ≤ 0".
        allowed: &'static str,
    },
    /// A calibrated plan that cannot be used; the text says why and what to do.
    Plan(PlanError),
}

/// Why a plan cannot be built, read or used.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// Not a plan file, or a damaged one.
    Malformed(String),
    /// Written by a newer version of this library.
    Version {
        /// The version in the file.
        found: u64,
        /// The newest version that this library reads.
        supported: u64,
    },
    /// The plan was made from another model.
    OtherModel {
        /// What the plan was made from.
        plan: String,
        /// What it is being used with.
        model: String,
        /// In what the two differ, as in "channels".
        differ: Vec<&'static str>,
    },
    /// The length list is empty, has a zero, or is not strictly ascending.
    Lengths {
        /// The first index that is out of order.
        index: usize,
    },
    /// A calibration window that does not fit the others.
    Window(String),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::Malformed(why) => write!(f, "not a usable plan: {why}"),
            PlanError::Version { found, supported } => write!(
                f,
                "the plan has format version {found}, this library reads up to {supported}; update it or calibrate again"
            ),
            PlanError::OtherModel { plan, model, differ } => write!(
                f,
                "the plan was made from model {plan} and cannot be used with model {model}: they differ \
                 in {}; calibrate this model",
                differ.join(" and ")
            ),
            PlanError::Lengths { index } => write!(
                f,
                "the list of lengths must be positive and strictly ascending; entry {index} is not"
            ),
            PlanError::Window(why) => write!(f, "unusable calibration window: {why}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { tensor, expected, actual } => {
                write!(f, "{tensor} has shape {actual}, expected {expected}")
            }
            Error::OutOfBounds { needed: Some(needed), available } => {
                write!(f, "layout needs {needed} elements, storage has {available}")
            }
            Error::OutOfBounds { needed: None, available } => {
                write!(f, "layout needs more elements than can be counted, storage has {available}")
            }
            Error::Overlapping { shape, strides } => {
                write!(f, "mutable layout {shape} with strides {strides} names an element twice")
            }
            Error::Slice { dim, start, end, shape } => {
                write!(f, "slice {start}..{end} of dimension {dim} is outside shape {shape}")
            }
            Error::Permutation { order } => {
                write!(f, "{order} is not a permutation of the dimensions")
            }
            Error::DType { expected, actual } => {
                write!(f, "tensor holds {actual}, expected {expected}")
            }
            Error::Rank { rank } => {
                write!(f, "tensor has {rank} dimensions, at most 4 are supported")
            }
            Error::NotContiguous { tensor } => {
                write!(f, "the last dimension of {tensor} must be contiguous")
            }
            Error::Value { tensor, index, value, allowed } => {
                write!(f, "{tensor}[{index}] is {value}, must be {allowed}")
            }
            Error::Plan(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        Error::Plan(error)
    }
}
