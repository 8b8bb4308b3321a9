//! A model: embedding, layers, final norm, head.

use crate::Result;
use crate::backend::{Backend, Columns, CpuBackend, Linear};
use crate::checkpoint::{Checkpoint, LoadOptions};
use crate::config::Config;
use crate::mixer::{Mixer, Rates};
use crate::session::{Session, SessionOptions};
use crate::workspace::{LayerState, Workspace};
use longmamba_core::SharedBytes;
use longmamba_core::policy::Fingerprint;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EMBEDDING: &str = "backbone.embeddings.weight";
const HEAD: &str = "lm_head.weight";

/// A Mamba-1 or Mamba-2 language model on one device.
///
/// ```no_run
/// use longmamba_model::{CpuBackend, Model, SessionOptions};
/// let model = Model::load("path/to/mamba2-130m-hf".as_ref(), CpuBackend::new(None)?)?;
/// let mut session = model.session(SessionOptions::default())?;
/// session.prefill(&[1, 2, 3])?;
/// println!("{} logits", session.logits().len());
/// # Ok::<(), longmamba_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Model<B: Backend = CpuBackend> {
    config: Config,
    path: PathBuf,
    backend: B,
    embedding: B::Matrix,
    layers: Vec<Layer<B>>,
    final_norm: B::Vector,
    /// d_model → vocabulary; shares the embedding table where the head is tied.
    head: Linear<B>,
    fingerprint: Fingerprint,
    weights: WeightCount,
}

/// One layer: norm, mixer, residual.
#[derive(Debug)]
struct Layer<B: Backend> {
    norm: B::Vector,
    mixer: Mixer<B>,
}

/// How many parameters a model has, and in which types.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct WeightCount {
    /// All parameters; a tied head counts once.
    pub parameters: usize,
    /// Parameters by element type: `bf16`, `f32` and so on.
    pub by_dtype: BTreeMap<String, usize>,
    /// Bytes of weights in the file.
    pub bytes: usize,
}

/// Called with each layer's index and its Δ `[rows, channels]`, chunk by chunk.
pub(crate) type Observer<'a> = &'a mut (dyn FnMut(usize, &[f32]) -> Result<()> + Send);

impl<B: Backend> Model<B> {
    /// Loads a Hugging Face folder: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file and tensor.
    pub fn load(folder: &Path, backend: B) -> Result<Arc<Self>> {
        Self::load_with(folder, backend, LoadOptions::default())
    }

    /// As [`Model::load`], with options.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(folder: &Path, backend: B, options: LoadOptions) -> Result<Arc<Self>> {
        let config = Config::read(&folder.join("config.json"))?;
        let checkpoint = Checkpoint::open_folder(folder, options)?;
        Self::build(config, checkpoint, folder, backend)
    }

    /// Loads a model from bytes: the text of a `config.json` and a safetensors file. `name` stands
    /// for the path in messages.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_bytes(
        config: &[u8],
        weights: SharedBytes,
        name: &str,
        backend: B,
    ) -> Result<Arc<Self>> {
        let path = Path::new(name);
        let config = Config::parse(config, &path.join("config.json"))?;
        let file = path.join("model.safetensors");
        let checkpoint = Checkpoint::from_bytes(weights, &file, LoadOptions::default())?;
        Self::build(config, checkpoint, path, backend)
    }

    fn build(
        config: Config,
        mut weights: Checkpoint,
        path: &Path,
        backend: B,
    ) -> Result<Arc<Self>> {
        // Some tools write a tied head a second time. It is one weight, and the model the same.
        if config.tied_head {
            weights.drop_copy(HEAD, EMBEDDING);
        }
        let fingerprint = Fingerprint {
            family: config.mixer.family().into(),
            layers: config.layers,
            channels: config.mixer.channels(),
            digest: weights.digest(),
        };
        let mut count = WeightCount::default();
        for tensor in weights.tensors() {
            let elements = tensor.shape.iter().product::<usize>();
            count.parameters += elements;
            *count.by_dtype.entry(tensor.dtype).or_default() += elements;
            count.bytes += tensor.bytes;
        }
        let table = [config.vocab_size, config.d_model];
        let embedding = backend.matrix(weights.take(EMBEDDING, &table)?)?;
        let head = match config.tied_head {
            true => embedding.clone(),
            false => backend.matrix(weights.take(HEAD, &table)?)?,
        };
        let layers = (0..config.layers)
            .map(|index| {
                let prefix = format!("backbone.layers.{index}");
                let norm = weights.take_f32(&format!("{prefix}.norm.weight"), &[config.d_model])?;
                let mixer = Mixer::load(&config, &mut weights, &prefix, &backend)?;
                Ok(Layer { norm: backend.vector(norm)?, mixer })
            })
            .collect::<Result<Vec<_>>>()?;
        let final_norm = weights.take_f32("backbone.norm_f.weight", &[config.d_model])?;
        weights.finish()?;
        Ok(Arc::new(Model {
            path: path.to_owned(),
            embedding,
            layers,
            final_norm: backend.vector(final_norm)?,
            head: Linear { weight: head, bias: None, outputs: config.vocab_size },
            fingerprint,
            weights: count,
            config,
            backend,
        }))
    }

    /// A session that has read nothing yet.
    ///
    /// # Errors
    /// [`Error::Core`] where the plan in `options` was made from another model; [`Error::Argument`]
    /// where an option is out of range.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Result<Session<B>> {
        Session::new(self.clone(), options)
    }

    /// What the model is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The folder or name that the model was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Recognises the model: plans and snapshots are bound to it.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// How many parameters, in which types.
    pub fn weights(&self) -> &WeightCount {
        &self.weights
    }

    /// A of a layer.
    pub(crate) fn rates(&self, layer: usize) -> Result<Rates> {
        self.layers[layer].mixer.rates(&self.backend)
    }

    /// One chunk through all layers. `delta_min` is `[layers, channels]`, or empty: no mask.
    pub(crate) fn forward(
        &self,
        tokens: &[u32],
        work: &mut Workspace<B>,
        states: &mut [LayerState<B>],
        delta_min: &[f32],
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let rows = tokens.len();
        let channels = self.config.mixer.channels();
        let (backend, width) = (&self.backend, self.config.d_model);
        backend.embedding(&self.embedding, tokens, width, &mut work.hidden)?;
        for (index, (layer, state)) in self.layers.iter().zip(states).enumerate() {
            let Workspace { hidden, normed, .. } = work;
            backend.norm(hidden, 0, rows, &layer.norm, self.config.norm_eps, normed)?;
            let delta_min = delta_min.chunks_exact(channels).nth(index);
            layer.mixer.forward(backend, rows, work, state, delta_min)?;
            if let Some(observe) = observer.as_mut() {
                let mut delta = vec![0.0; rows * channels];
                layer.mixer.delta(backend, rows, work, &mut delta)?;
                observe(index, &delta)?;
            }
        }
        Ok(())
    }

    /// Logits of rows `first..first + rows` of the chunk in `work`, to `work.logits`. At most
    /// `work.logit_rows` at a time.
    pub(crate) fn logits(&self, first: usize, rows: usize, work: &mut Workspace<B>) -> Result<()> {
        let Workspace { hidden, normed, logits, .. } = work;
        let (backend, eps) = (&self.backend, self.config.norm_eps);
        backend.norm(hidden, first, rows, &self.final_norm, eps, normed)?;
        let u = Columns::all(&*normed, self.config.d_model);
        backend.project(rows, u, &self.head, false, logits)
    }
}
