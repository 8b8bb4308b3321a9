//! Which kernel takes a product, and in how many blocks.

use super::Values;
use crate::launch::Grid;
use crate::{Error, Result};

/// What a product is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Whether all rows of `x` are whole vectors of 16 bytes.
    pub aligned: bool,
    pub cores: Cores,
    /// Of the device.
    pub multiprocessors: usize,
}

/// The tensor cores that a product may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cores {
    None,
    /// Of capability 7.5: blocks have at most 64 KiB of shared memory.
    Turing,
    /// From capability 8.0 on.
    Ampere,
}

/// The way to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Dot products, `rows` rows of `x` at a time; 2^`halvings` warps share one.
    Few { rows: usize, halvings: u32 },
    /// Tiles in f32.
    Exact(Tile),
    /// Tiles on tensor cores.
    Tensor(Tile),
}

/// What a block makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    /// 64 rows, 64 outputs.
    Small,
    /// 128 rows, 128 outputs.
    Large,
    /// 128 rows, 256 outputs.
    Wide,
}

const FEW_WARPS: usize = 8;
/// Up to here the product is one of dot products, on whatever device.
pub(super) const FEW_ROWS: usize = 8;
/// Inputs that a warp of few_rows takes at a time.
const CHUNK: usize = 512;
/// Dynamic shared memory of the kernels for `Tile::Wide`: three stages of 32 values of 16 bits for every
/// row and output.
const WIDE_SHARED: usize = 3 * (128 + 256) * 32 * 2;

impl Problem {
    /// Whatever is chosen, a row's result depends on no other row; between the three kinds of kernel it
    /// may differ in the last bits.
    pub(super) fn kernel(&self) -> Kernel {
        // Up to here reading the weight again for every 8 rows, from L2, takes less than the single row of
        // tiles, most of it empty, that most multiprocessors would not even have one of.
        let few = if self.cores == Cores::None { 32 } else { FEW_ROWS };
        if self.rows <= few {
            let rows = self.rows.next_power_of_two().min(8);
            return Kernel::Few { rows, halvings: self.halvings() };
        }
        match self.cores {
            Cores::None => Kernel::Exact(self.tile()),
            Cores::Turing | Cores::Ampere => Kernel::Tensor(self.tile()),
        }
    }

    /// The larger a tile, the less is read; but each multiprocessor should have one, and of the widest, of
    /// which it holds only one at a time, two, so that few wait for a last one.
    fn tile(&self) -> Tile {
        let fills = |tile, times| self.tiles(tile) >= times * self.multiprocessors;
        if !self.aligned {
            Tile::Small
        } else if self.cores == Cores::Ampere && fills(Tile::Wide, 2) {
            Tile::Wide
        } else if fills(Tile::Large, 1) {
            Tile::Large
        } else {
            Tile::Small
        }
    }

    /// As many warps to a sum as it takes for 32 on each multiprocessor, but not more than there are chunks
    /// of inputs. The number of rows has no say, so that it cannot change the sums.
    pub(super) fn halvings(&self) -> u32 {
        let wanted = (32 * self.multiprocessors).div_ceil(self.outputs.max(1));
        let most = self.inputs.div_ceil(CHUNK);
        wanted.min(most).next_power_of_two().min(FEW_WARPS).ilog2()
    }

    fn tiles(&self, tile: Tile) -> usize {
        let (rows, outputs) = match tile {
            Tile::Small => (64, 64),
            Tile::Large => (128, 128),
            Tile::Wide => (128, 256),
        };
        self.rows.div_ceil(rows).saturating_mul(self.outputs.div_ceil(outputs))
    }

    /// The blocks for `kernel`.
    pub(super) fn grid(&self, kernel: Kernel) -> Result<Grid> {
        let grid = match kernel {
            Kernel::Few { rows, halvings } => {
                let outputs = (FEW_WARPS >> halvings) * outputs_at_once(rows);
                let (x, y) = (self.outputs.div_ceil(outputs), self.rows.div_ceil(rows));
                Grid::plane(x, y, 32 * FEW_WARPS as u32)
            }
            Kernel::Exact(tile) => Grid::line(self.tiles(tile), 256),
            Kernel::Tensor(Tile::Wide) => {
                Grid::line(self.tiles(Tile::Wide), 256).shared(WIDE_SHARED)
            }
            Kernel::Tensor(tile) => Grid::line(self.tiles(tile), 128),
        };
        check("blocks", grid.blocks[0] as usize)?;
        Ok(grid)
    }

    /// Sizes that the kernels can count.
    pub(super) fn check(&self) -> Result<()> {
        check_sizes(self.rows, self.inputs, self.outputs)
    }
}

/// As in kernels/matmul.cu.
fn outputs_at_once(rows: usize) -> usize {
    rows.div_ceil(2)
}

pub(super) fn check_sizes(rows: usize, inputs: usize, outputs: usize) -> Result<()> {
    check("rows", rows)?;
    check("inputs", inputs)?;
    check("outputs", outputs)
}

fn check(what: &'static str, actual: usize) -> Result<()> {
    let limit = i32::MAX as usize;
    match actual > limit {
        true => Err(Error::Unsupported { kernel: "matmul", what, limit, actual }),
        false => Ok(()),
    }
}

/// The names of a kernel for each type of weight.
macro_rules! typed {
    ($values:expr, $kernel:literal, $variant:literal) => {
        match $values {
            Values::F32(_) => concat!($kernel, "_f32_", $variant),
            Values::F16(_) => concat!($kernel, "_f16_", $variant),
            Values::BF16(_) => concat!($kernel, "_bf16_", $variant),
        }
    };
}

impl Kernel {
    /// 2 to this power warps share a sum.
    pub(super) fn halvings(self) -> u32 {
        match self {
            Kernel::Few { halvings, .. } => halvings,
            Kernel::Exact(_) | Kernel::Tensor(_) => 0,
        }
    }

    /// Its name in kernels/matmul.cu.
    pub(super) fn name(self, values: &Values, aligned: bool) -> &'static str {
        match (self, aligned) {
            (Kernel::Few { rows: ..=1, .. }, true) => typed!(values, "few_rows", "1"),
            (Kernel::Few { rows: 2, .. }, true) => typed!(values, "few_rows", "2"),
            (Kernel::Few { rows: 3..=4, .. }, true) => typed!(values, "few_rows", "4"),
            (Kernel::Few { .. }, true) => typed!(values, "few_rows", "8"),
            (Kernel::Few { rows: ..=1, .. }, false) => typed!(values, "few_rows", "1_any"),
            (Kernel::Few { rows: 2, .. }, false) => typed!(values, "few_rows", "2_any"),
            (Kernel::Few { rows: 3..=4, .. }, false) => typed!(values, "few_rows", "4_any"),
            (Kernel::Few { .. }, false) => typed!(values, "few_rows", "8_any"),
            (Kernel::Exact(_), false) => typed!(values, "exact", "any"),
            (Kernel::Exact(Tile::Small), true) => typed!(values, "exact", "64"),
            (Kernel::Exact(_), true) => typed!(values, "exact", "128"),
            (Kernel::Tensor(_), false) => typed!(values, "tensor", "any"),
            (Kernel::Tensor(Tile::Small), true) => typed!(values, "tensor", "64"),
            (Kernel::Tensor(Tile::Large), true) => typed!(values, "tensor", "128"),
            (Kernel::Tensor(Tile::Wide), true) => typed!(values, "tensor", "256"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100 and a weight of 16 bits.
    fn problem(rows: usize, inputs: usize, outputs: usize) -> Problem {
        let (aligned, multiprocessors) = (inputs.is_multiple_of(4), 132);
        Problem { rows, inputs, outputs, aligned, cores: Cores::Ampere, multiprocessors }
    }

    #[test]
    fn decode_has_warps_for_every_multiprocessor() {
        for (inputs, outputs) in [(768, 3352), (1536, 768), (2048, 8192), (768, 50280)] {
            let problem = problem(1, inputs, outputs);
            let Kernel::Few { rows: 1, halvings } = problem.kernel() else { panic!("one row") };
            let warps = outputs << halvings;
            assert!(warps >= 132 * 16, "{inputs} -> {outputs}: {warps} warps");
            assert!(inputs > CHUNK << halvings >> 1, "{inputs} -> {outputs}: idle warps");
        }
    }

    #[test]
    fn rows_do_not_change_how_sums_are_split() {
        let halvings = |rows| problem(rows, 1536, 768).halvings();
        assert!((2..9).all(|rows| halvings(rows) == halvings(1)));
    }

    #[test]
    fn large_tiles_where_there_are_enough_of_them() {
        let tile = |rows, inputs, outputs| problem(rows, inputs, outputs).tile();
        assert_eq!(tile(2048, 2048, 8192), Tile::Wide);
        assert_eq!(tile(2048, 768, 3352), Tile::Large);
        assert_eq!(tile(512, 1536, 768), Tile::Small);
        assert_eq!(tile(2048, 767, 8192), Tile::Small);
        let turing = Problem { cores: Cores::Turing, ..problem(2048, 2048, 8192) };
        assert_eq!(turing.tile(), Tile::Large);
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let problem = problem(1 << 40, 8, 8);
        assert!(matches!(problem.check(), Err(Error::Unsupported { what: "rows", .. })));
    }
}
