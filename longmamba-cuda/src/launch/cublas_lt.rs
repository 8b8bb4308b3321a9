//! The few functions of cuBLASLt that a product takes, from the library that is found at run time.
//!
//! Names, numbers and prototypes are those of its header `cublasLt.h`, which are the same in versions 12 and
//! 13. The library counts rows and columns as Fortran does: a matrix of rows here is one of columns there.

use super::Pointer;
use crate::{CublasLt, Device, Error, Result};
use libloading::Library;
use std::error::Error as _;
use std::ffi::c_void;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

/// What versions 12 and 13 are called. Of 13 the driver must be as new.
const NAMES: [&str; 2] = ["libcublasLt.so.12", "libcublasLt.so.13"];

/// `cublasStatus_t`; 0 is success.
type Status = i32;
/// A handle or a descriptor: a pointer that only the library follows.
type Object = *mut c_void;

/// `CUBLAS_COMPUTE_32F`: products and sums in f32, and of f32 never by way of TF32.
const COMPUTE_32F: i32 = 68;
/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;
/// `CUBLASLT_EPILOGUE_BIAS`: one bias for each row of the result, so for each of our outputs.
const EPILOGUE_BIAS: i32 = 4;

/// `cublasLtMatmulDescAttributes_t`.
mod operation {
    pub(super) const TRANSA: i32 = 3;
    pub(super) const EPILOGUE: i32 = 7;
    pub(super) const BIAS_POINTER: i32 = 8;
}

/// `cublasLtMatmulPreferenceAttributes_t`.
mod preference {
    pub(super) const MAX_WORKSPACE_BYTES: i32 = 1;
    /// Of A, B, C and D.
    pub(super) const MIN_ALIGNMENT_BYTES: [i32; 4] = [5, 6, 7, 8];
}

/// `cudaDataType_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub(crate) enum Type {
    F32 = 0,
    F16 = 2,
    BF16 = 14,
}

/// `cublasLtMatmulHeuristicResult_t`: how a product is best taken.
#[derive(Clone, Copy)]
#[repr(C)]
struct Choice {
    /// `cublasLtMatmulAlgo_t`.
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [i32; 4],
}

type Create = unsafe extern "C" fn(*mut Object) -> Status;
type Destroy = unsafe extern "C" fn(Object) -> Status;
type SetAttribute = unsafe extern "C" fn(Object, i32, *const c_void, usize) -> Status;

struct Functions {
    create: Create,
    destroy: Destroy,
    create_operation: unsafe extern "C" fn(*mut Object, i32, i32) -> Status,
    set_operation: SetAttribute,
    destroy_operation: Destroy,
    create_layout: unsafe extern "C" fn(*mut Object, i32, u64, u64, i64) -> Status,
    destroy_layout: Destroy,
    create_preference: Create,
    set_preference: SetAttribute,
    destroy_preference: Destroy,
    choose: unsafe extern "C" fn(
        Object,
        Object,
        Object,
        Object,
        Object,
        Object,
        Object,
        i32,
        *mut Choice,
        *mut i32,
    ) -> Status,
    matmul: unsafe extern "C" fn(
        Object,
        Object,
        *const f32,
        u64,
        Object,
        u64,
        Object,
        *const f32,
        u64,
        Object,
        u64,
        Object,
        *const [u64; 8],
        u64,
        usize,
        *mut c_void,
    ) -> Status,
    /// Where the functions are.
    _library: Library,
}

impl Functions {
    fn new(library: Library) -> std::result::Result<Self, libloading::Error> {
        macro_rules! find {
            ($name:literal) => {
                // SAFETY: the function of this name has this prototype; it is called only while the library
                // is loaded, for both are in one struct.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }?
            };
        }
        Ok(Functions {
            create: find!("cublasLtCreate"),
            destroy: find!("cublasLtDestroy"),
            create_operation: find!("cublasLtMatmulDescCreate"),
            set_operation: find!("cublasLtMatmulDescSetAttribute"),
            destroy_operation: find!("cublasLtMatmulDescDestroy"),
            create_layout: find!("cublasLtMatrixLayoutCreate"),
            destroy_layout: find!("cublasLtMatrixLayoutDestroy"),
            create_preference: find!("cublasLtMatmulPreferenceCreate"),
            set_preference: find!("cublasLtMatmulPreferenceSetAttribute"),
            destroy_preference: find!("cublasLtMatmulPreferenceDestroy"),
            choose: find!("cublasLtMatmulAlgoGetHeuristic"),
            matmul: find!("cublasLtMatmul"),
            _library: library,
        })
    }

    /// Of the first of `files` that can be loaded.
    ///
    /// # Safety
    /// They are cuBLASLt, or not there.
    unsafe fn load(files: &[&Path]) -> Result<Arc<Self>> {
        let mut reason = None;
        for file in files {
            // SAFETY: the library's initialisers are sound to run.
            match unsafe { Library::new(*file) }.and_then(Functions::new) {
                Ok(functions) => return Ok(Arc::new(functions)),
                // The loader's own words are the source.
                Err(error) => {
                    let words = error.source().map_or(error.to_string(), ToString::to_string);
                    reason.get_or_insert(words);
                }
            }
        }
        let sought: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        let (sought, reason) = (sought.join(" or "), reason.unwrap_or_default());
        Err(Error::NoCublasLt { sought, reason })
    }
}

fn check(doing: &'static str, status: Status) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(Error::CublasLt { doing, status }) }
}

/// An object of the library, which is destroyed with it.
struct Owned {
    object: Object,
    destroy: Destroy,
    functions: Arc<Functions>,
}

// SAFETY: the library lets any thread use its objects, one at a time. Only `Blas` and `Plan` use them, and
// those are kept behind a lock.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the object was made by the function that belongs to this one, and nobody has it any more.
        // An error means that it was broken before.
        unsafe { (self.destroy)(self.object) };
    }
}

impl Owned {
    fn new(
        functions: &Arc<Functions>,
        doing: &'static str,
        destroy: Destroy,
        create: impl FnOnce(*mut Object) -> Status,
    ) -> Result<Self> {
        let mut object = null_mut();
        check(doing, create(&mut object))?;
        Ok(Owned { object, destroy, functions: functions.clone() })
    }

    fn set<T: bytemuck::Pod>(
        &self,
        doing: &'static str,
        set: SetAttribute,
        attribute: i32,
        value: T,
    ) -> Result<()> {
        let from = std::ptr::from_ref(&value).cast();
        // SAFETY: the object lives, and the library copies as many bytes as the value has.
        check(doing, unsafe { set(self.object, attribute, from, size_of::<T>()) })
    }
}

/// The library, ready to work for a device.
pub(crate) struct Blas {
    handle: Owned,
}

impl Blas {
    /// From wherever the system's loader finds it.
    pub(crate) fn load(device: &Device) -> Result<Self> {
        // SAFETY: files of these names are cuBLASLt, as the driver is what it is called.
        Blas::new(device, unsafe { Functions::load(&NAMES.map(Path::new)) }?)
    }

    fn new(device: &Device, functions: Arc<Functions>) -> Result<Self> {
        device.context.bind_to_thread().map_err(Error::driver("open the device"))?;
        // SAFETY: the pointer is valid for the write; the context of the device is current.
        let create = |object| unsafe { (functions.create)(object) };
        let handle = Owned::new(&functions, "start", functions.destroy, create)?;
        Ok(Blas { handle })
    }
}

impl CublasLt {
    /// As [`CublasLt::load`], from this file.
    ///
    /// # Safety
    /// The file is cuBLASLt, version 12 or 13, or something that behaves as it does.
    ///
    /// # Errors
    /// As [`CublasLt::load`].
    pub unsafe fn load_from(device: &Device, library: &Path) -> Result<Self> {
        // SAFETY: the caller's duty.
        CublasLt::new(device, Blas::new(device, unsafe { Functions::load(&[library]) }?)?)
    }
}

/// What must be the same for a plan to fit: `out = x · weightᵀ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Of `x` and of the weight; the result is f32.
    pub operands: Type,
    /// Between rows, in elements.
    pub x_stride: usize,
    pub weight_stride: usize,
    pub out_stride: usize,
    pub bias: bool,
    /// Of the weight, `x` and the result, in bytes.
    pub alignments: [u32; 3],
}

/// The operands of a product.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub x: Pointer,
    pub weight: Pointer,
    /// Null where the shape has none.
    pub bias: Pointer,
    pub out: Pointer,
    pub accumulate: bool,
    pub workspace: Pointer,
}

impl Operands {
    /// What the addresses are multiples of, up to the 256 bytes of a fresh buffer.
    pub(crate) fn alignments(&self) -> [u32; 3] {
        [self.weight, self.x, self.out].map(|address| 1 << address.0.trailing_zeros().min(8))
    }
}

/// How products of one shape are taken.
pub(crate) struct Plan {
    operation: Owned,
    weight: Owned,
    x: Owned,
    out: Owned,
    algorithm: [u64; 8],
    /// Bytes, of those that were offered.
    workspace: usize,
}

impl Plan {
    /// The library's best for `shape`, with up to `workspace` bytes.
    pub(crate) fn new(blas: &Blas, shape: &Shape, bias: Pointer, workspace: usize) -> Result<Self> {
        let functions = &blas.handle.functions;
        let doing = "describe a product";
        let f32s = Type::F32 as i32;
        // SAFETY: the pointer is valid for the write.
        let create = |object| unsafe { (functions.create_operation)(object, COMPUTE_32F, f32s) };
        let operation = Owned::new(functions, doing, functions.destroy_operation, create)?;
        let set = functions.set_operation;
        operation.set(doing, set, operation::TRANSA, TRANSPOSED)?;
        if shape.bias {
            operation.set(doing, set, operation::EPILOGUE, EPILOGUE_BIAS)?;
            // The choice may depend on where it is; each product sets its own.
            operation.set(doing, set, operation::BIAS_POINTER, bias.0)?;
        }
        let layout = |kind: Type, width: usize, rows: usize, stride: usize| {
            let (kind, width, rows, stride) =
                (kind as i32, width as u64, rows as u64, stride as i64);
            // SAFETY: the pointer is valid for the write.
            let create =
                |object| unsafe { (functions.create_layout)(object, kind, width, rows, stride) };
            Owned::new(functions, doing, functions.destroy_layout, create)
        };
        let Shape { rows, inputs, outputs, operands, .. } = *shape;
        let weight = layout(operands, inputs, outputs, shape.weight_stride)?;
        let x = layout(operands, inputs, rows, shape.x_stride)?;
        let out = layout(Type::F32, outputs, rows, shape.out_stride)?;

        // SAFETY: the pointer is valid for the write.
        let create = |object| unsafe { (functions.create_preference)(object) };
        let preference = Owned::new(functions, doing, functions.destroy_preference, create)?;
        let set = functions.set_preference;
        preference.set(doing, set, preference::MAX_WORKSPACE_BYTES, workspace)?;
        let [a, b, d] = shape.alignments;
        for (attribute, bytes) in preference::MIN_ALIGNMENT_BYTES.into_iter().zip([a, b, d, d]) {
            preference.set(doing, set, attribute, bytes)?;
        }
        let mut choice =
            Choice { algorithm: [0; 8], workspace: 0, state: 0, waves: 0.0, reserved: [0; 4] };
        let mut count = 0;
        // SAFETY: all objects live, and there is room for the one choice that is asked for.
        let status = unsafe {
            (functions.choose)(
                blas.handle.object,
                operation.object,
                weight.object,
                x.object,
                out.object,
                out.object,
                preference.object,
                1,
                &mut choice,
                &mut count,
            )
        };
        let doing = "find a way to take a product";
        check(doing, status)?;
        check(doing, choice.state)?;
        if count < 1 || choice.workspace > workspace {
            // CUBLAS_STATUS_NOT_SUPPORTED.
            return Err(Error::CublasLt { doing, status: 15 });
        }
        let Choice { algorithm, workspace, .. } = choice;
        Ok(Plan { operation, weight, x, out, algorithm, workspace })
    }

    /// Gives the product to the device. The addresses are those of whole operands of the plan's shape, and
    /// of as many bytes of workspace as the plan was offered.
    pub(crate) fn run(&mut self, blas: &Blas, device: &Device, operands: Operands) -> Result<()> {
        let functions = &blas.handle.functions;
        let doing = "take a product";
        let Operands { x, weight, bias, out, accumulate, workspace } = operands;
        if bias != Pointer::NULL {
            let set = functions.set_operation;
            self.operation.set(doing, set, operation::BIAS_POINTER, bias.0)?;
        }
        device.context.bind_to_thread().map_err(Error::driver("launch a kernel"))?;
        let (one, beta) = (1.0f32, f32::from(u8::from(accumulate)));
        // SAFETY: all objects live, and the numbers are read before the call returns. The addresses were
        // checked against their buffers for this shape (the caller's duty); those buffers are freed in this
        // same stream, so after the product. C and D are the same rows with the same layout.
        let status = unsafe {
            (functions.matmul)(
                blas.handle.object,
                self.operation.object,
                &one,
                weight.0,
                self.weight.object,
                x.0,
                self.x.object,
                &beta,
                out.0,
                self.out.object,
                out.0,
                self.out.object,
                &self.algorithm,
                workspace.0,
                self.workspace,
                device.stream.cu_stream().cast(),
            )
        };
        check(doing, status)
    }
}
