//! The CPU as a device, and how it is used.

use super::{Profile, Stage};
use crate::{Error, Result};
use longmamba_cpu::limits::Work;
use longmamba_cpu::{Cpu, Quantization};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;
use std::time::Instant;

/// The processor, with a thread pool of its own or the caller's.
///
/// State, Δ, sums and small weights are `f32`; large weights keep the type that they have in the file. Where
/// that is `bf16`, and the processor multiplies `bf16` faster than `f32` ([`Cpu::has_fast_bf16`]), activations are
/// rounded to `bf16` where they meet such a weight, and in the chunks of a Mamba-2 scan. Logits then differ from
/// those of [`CpuBackend::exact`] in the third digit or so, as they do with every other implementation that
/// computes in `bf16`.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    pub(super) cpu: Cpu,
    pub(super) pool: Option<Arc<ThreadPool>>,
    /// Whether activations are rounded to `bf16` where they meet weights of that type.
    pub(super) rounds: bool,
    /// In how many bits linear maps are kept; `None`: as they are in the file.
    pub(super) quantization: Option<Quantization>,
    /// The bytes from which on a linear map is rearranged.
    pub(super) packed_from: usize,
    /// Whether rearranged weights of type `bf16` are kept in twelve bits.
    pub(super) compact: bool,
    pub(super) profile: Option<Arc<Profile>>,
}

/// Smaller maps have few panels to share out among threads, and a single token waits for the slowest.
const PACKED_FROM: usize = 1 << 20;

impl CpuBackend {
    /// The best instruction set of this processor. `threads`: a pool of that many; `None`: the rayon
    /// pool that the caller is in.
    ///
    /// # Errors
    /// [`Error::Argument`] where threads cannot be started.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        Self::with_cpu(Cpu::new(), threads)
    }

    /// A particular instruction set.
    ///
    /// # Errors
    /// As [`CpuBackend::new`].
    pub fn with_cpu(cpu: Cpu, threads: Option<usize>) -> Result<Self> {
        let start = |n| {
            let pool = ThreadPoolBuilder::new().num_threads(n).build();
            pool.map_err(|e| Error::argument(format!("cannot start {n} threads: {e}")))
        };
        let pool = threads.map(start).transpose()?.map(Arc::new);
        Ok(CpuBackend {
            cpu,
            pool,
            rounds: cpu.has_fast_bf16(),
            quantization: None,
            packed_from: PACKED_FROM,
            compact: cpu.has_fast_compact(),
            profile: None,
        })
    }

    /// The same, with all activations in `f32`, whatever the type of the weights: what references are compared
    /// with. The sums are then the same on every processor but for their last digits.
    #[must_use]
    pub fn exact(self) -> Self {
        CpuBackend { rounds: false, ..self }
    }

    /// The same, for models that are loaded from now on with their linear maps quantised: in 8 or 4 bits, with a
    /// scale for each 32 neighbouring inputs ([`Quantized`](longmamba_cpu::Quantized)). Writing token by token waits for weights to arrive
    /// from memory, and these are fewer bytes; the weights are less exact.
    ///
    /// The embedding table is looked up as it is in the file; a head that is tied to it gets a quantised copy.
    /// The small map to Mamba-1's Δ, on which whole states depend, stays as it is. Activations are not quantised.
    /// Plans and snapshots are those of the same model as it is in the file.
    #[must_use]
    pub fn quantized(self, quantization: Quantization) -> Self {
        CpuBackend { quantization: Some(quantization), ..self }
    }

    /// The same, for models that are loaded from now on with linear maps of at least so many bytes rearranged
    /// where they are copied ([`Packed`](longmamba_cpu::Packed)); as it is, those of a megabyte.
    #[must_use]
    pub fn packed_from(self, bytes: usize) -> Self {
        CpuBackend { packed_from: bytes, ..self }
    }

    /// The same, for models that are loaded from now on with rearranged weights of type `bf16` in twelve bits a weight,
    /// where that loses nothing ([`Cpu::pack_compact`](longmamba_cpu::Cpu::pack_compact)), or not. Logits are the same
    /// either way. As it is, they are where the processor reads them fast enough
    /// ([`Cpu::has_fast_compact`](longmamba_cpu::Cpu::has_fast_compact)).
    #[must_use]
    pub fn compact(self, compact: bool) -> Self {
        CpuBackend { compact, ..self }
    }

    /// The same, rounding as if the processor were faster so, also where it is not: to see elsewhere what such a
    /// one gives.
    #[must_use]
    pub fn rounded(self) -> Self {
        CpuBackend { rounds: true, ..self }
    }

    /// The same, and notes from now on what each stage takes. Stages are timed one by one, so nothing else
    /// should use the backend at the same time.
    #[must_use]
    pub fn profiled(self) -> Self {
        CpuBackend { profile: Some(Arc::default()), ..self }
    }

    /// What stages have taken, where that is noted.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// Does the stage `name` of `rows` rows.
    pub(super) fn timed<R>(
        &self,
        rows: usize,
        name: &'static str,
        sizes: [usize; 3],
        work: Work,
        stage: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let Some(profile) = &self.profile else { return stage() };
        let start = Instant::now();
        let result = stage()?;
        profile.add(Stage { step: rows == 1, name, sizes }, work, start.elapsed());
        Ok(result)
    }

    /// The kernels.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The number of threads that work is spread over.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or_else(rayon::current_num_threads, |p| p.current_num_threads())
    }
}
