//! A model: embedding, layers, final norm, head.

use crate::attention::Attention;
use crate::backend::{Backend, Columns, ColumnsMut, CpuBackend, Linear, Norm, Purpose};
use crate::checkpoint::{Checkpoint, LoadOptions, Placement};
use crate::config::{Config, LayerKind};
use crate::layer::{Layer, Mixing, Mlp, norm_project};
use crate::load::{Loader, for_products};
use crate::mixer::{Mixer, Rates};
use crate::names::{HEAD, drop_copies, shared_blocks};
use crate::sequence::Sequence;
use crate::session::{Session, SessionOptions};
use crate::shared::{Blocks, SharedCall};
use crate::workspace::{Segment, Workspace};
use crate::{Error, Result, free_memory, large};
use longmamba_core::SharedBytes;
use longmamba_core::policy::Fingerprint;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A language model on one device.
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
    final_norm: Norm<B>,
    /// d_model → vocabulary; shares the embedding table where the head is tied and not quantised.
    head: Linear<B>,
    fingerprint: Fingerprint,
    weights: WeightCount,
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

/// One chunk on its way through the layers.
pub(crate) struct Step<'a, B: Backend> {
    pub backend: &'a B,
    /// Tokens of the chunk.
    pub rows: usize,
    pub work: &'a mut Workspace<B>,
    /// Whose rows they are.
    pub segments: &'a mut [Segment],
    pub sequences: &'a mut [Sequence<B>],
}

/// Called with each recurrent layer's index and its Δ `[rows, channels]`, chunk by chunk.
pub(crate) type Observer<'a> = &'a mut (dyn FnMut(usize, &[f32]) -> Result<()> + Send);

impl<B: Backend> Model<B> {
    /// Loads a checkpoint folder: `config.json`, and the weights in any form that
    /// [`Checkpoint::open_folder`] knows. Or one file of weights, with `config.json` beside it.
    /// [`hub::find`](crate::hub::find) gives the folder of a model in the Hugging Face cache.
    ///
    /// # Errors
    /// Whatever is wrong with the files, naming file and tensor.
    pub fn load(path: &Path, backend: B) -> Result<Arc<Self>> {
        Self::load_with(path, backend, LoadOptions::default())
    }

    /// As [`Model::load`], with options.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(path: &Path, backend: B, mut options: LoadOptions) -> Result<Arc<Self>> {
        let mut placement = Placement::Map;
        if backend.keeps_weights() {
            // The backend copies weight by weight, and not more than it wants.
            placement = options.placement.unwrap_or(Placement::Fit);
            options.placement = Some(Placement::Map);
        }
        let (config, weights) = if path.is_file() {
            let config = Config::read(&path.with_file_name("config.json"))?;
            (config, Checkpoint::open(path, options)?)
        } else {
            let config = Config::read(&path.join("config.json"))?;
            (config, Checkpoint::open_folder(path, options)?)
        };
        if placement == Placement::Fit && !free_memory::fits(weights.bytes(), free_memory::bytes())
        {
            placement = Placement::Map;
        }
        Self::build(config, weights, path, backend, placement)
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
        Self::build(config, checkpoint, path, backend, Placement::Map)
    }

    fn build(
        config: Config,
        mut weights: Checkpoint,
        path: &Path,
        backend: B,
        mut placement: Placement,
    ) -> Result<Arc<Self>> {
        drop_copies(&config, &mut weights);
        let fingerprint = Fingerprint {
            family: config.mixer.family().into(),
            layers: config.recurrent_layers(),
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
        if placement != Placement::Map {
            match weights.gather_small(large::LARGE) {
                Err(_) if placement == Placement::Fit => placement = Placement::Map,
                gathered => gathered?,
            }
        }
        let parts = Parts::load(&config, &mut weights, &backend, placement);
        backend.loaded();
        let Parts { embedding, head, layers, final_norm } = parts?;
        weights.finish()?;
        Ok(Arc::new(Model {
            path: path.to_owned(),
            embedding,
            layers,
            final_norm,
            head,
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

    /// A of a recurrent layer.
    pub(crate) fn rates(&self, layer: usize) -> Result<Rates> {
        self.mixer(layer)?.rates(&self.backend)
    }

    /// The mixer of a recurrent layer.
    pub(crate) fn mixer(&self, layer: usize) -> Result<&Mixer<B>> {
        let mixer = self.layers.iter().find_map(|l| match &l.mixing {
            Mixing::Recurrent(mixer, index) if *index == layer => Some(mixer),
            _ => None,
        });
        mixer.ok_or_else(|| Error::argument(format!("there is no layer {layer}")))
    }

    /// The chunk in `work.tokens` through all layers, each of `work.segments` with its sequence.
    pub(crate) fn forward(
        &self,
        work: &mut Workspace<B>,
        sequences: &mut [Sequence<B>],
        mut observer: Option<Observer<'_>>,
    ) -> Result<()> {
        let (backend, width) = (&self.backend, self.config.d_model);
        let rows = work.tokens.len();
        let hidden = ColumnsMut::all(&mut work.hidden, width);
        backend.embedding(&mut work.scratch, &self.embedding, &work.tokens, hidden)?;
        if self.config.shared.is_some() {
            // For the shared blocks, which read the embedding beside the residual stream.
            let (hidden, pair) = (&work.hidden, &mut work.paired);
            let right = ColumnsMut::all(pair, 2 * width).part(width, width);
            backend.copy(rows, Columns::all(hidden, width), false, right)?;
        }
        if self.config.attention.is_some() {
            // What changes from step to step: the rest can be recorded.
            for s in &work.segments {
                sequences[s.sequence].reserve(backend, s.rows)?;
            }
            let positions = work.segments.iter().map(|s| sequences[s.sequence].position);
            backend.positions(&mut work.scratch, positions)?;
        }
        // A step of one token each gives the device the same work every time, but where a method looks at Δ.
        work.key.clear();
        let repeats = |s: &Segment| s.rows == 1 && !sequences[s.sequence].applied.rewrites_steps();
        let step_only = work.segments.iter().all(repeats);
        if step_only && observer.is_none() {
            work.key.extend(work.segments.iter().map(|s| sequences[s.sequence].buffers));
        }
        let mut segments = std::mem::take(&mut work.segments);
        let key = std::mem::take(&mut work.key);
        let mut recording = std::mem::take(&mut work.recording);
        let mut step = Step { backend, rows, work, segments: &mut segments, sequences };
        let run = || {
            for layer in &self.layers {
                layer.forward(&mut step)?;
                if let (Some(observe), Mixing::Recurrent(mixer, index)) =
                    (observer.as_mut(), &layer.mixing)
                {
                    let mut delta = vec![0.0; step.rows * self.config.mixer.channels()];
                    mixer.delta(backend, step.rows, step.work, &mut delta)?;
                    observe(*index, &delta)?;
                }
            }
            Ok(())
        };
        let result = backend.repeat(&mut recording, &key, run);
        // Back to where their memory is kept.
        (work.segments, work.key, work.recording) = (segments, key, recording);
        result
    }

    /// Logits of rows `first..first + rows` of the chunk in `work`, to `work.logits`. At most
    /// `work.logit_rows` at a time.
    pub(crate) fn logits(&self, first: usize, rows: usize, work: &mut Workspace<B>) -> Result<()> {
        let Workspace { scratch, hidden, normed, logits, .. } = work;
        let (backend, width) = (&self.backend, self.config.d_model);
        let last = Columns::all(&*hidden, width).skip_rows(first);
        norm_project(backend, scratch, rows, last, &self.final_norm, normed, &self.head, logits)
    }
}

impl Config {
    /// Names and shapes of all tensors that a checkpoint of this model has; those that are shared are
    /// there once. Their elements are the model's parameters.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes that no memory could hold.
    pub fn tensors(&self) -> Result<Vec<(String, Vec<usize>)>> {
        let mut weights = Checkpoint::asking();
        Parts::load(self, &mut weights, &CpuBackend::new(None)?, Placement::Map)?;
        Ok(weights.asked())
    }
}

/// All that is made of weights.
struct Parts<B: Backend> {
    embedding: B::Matrix,
    head: Linear<B>,
    layers: Vec<Layer<B>>,
    final_norm: Norm<B>,
}

impl<B: Backend> Parts<B> {
    fn load(
        config: &Config,
        weights: &mut Checkpoint,
        backend: &B,
        placement: Placement,
    ) -> Result<Self> {
        let (inputs, outputs) = (config.d_model, config.vocab_rows);
        let name = config.format.embedding(weights);
        let mut loader = Loader { config, weights, backend, placement };
        let (embedding, dtype) = loader.matrix(name, &[outputs, inputs])?;
        let embedding = loader.place(embedding, Purpose::Rows)?;
        let (head, dtype) = match config.tied_head {
            true => (for_products(backend, embedding.clone(), loader.weights, name)?, dtype),
            false => {
                let (head, dtype) = loader.matrix(HEAD, &[outputs, inputs])?;
                let head = for_products(backend, head, loader.weights, HEAD)?;
                (loader.place(head, Purpose::Products)?, dtype)
            }
        };
        let layers = layers(&mut loader)?;
        let final_norm = loader.norm(config.format.final_norm(), config.d_model)?;
        let head = Linear { weight: head, bias: None, inputs, outputs, dtype };
        Ok(Parts { embedding, head, layers, final_norm })
    }
}

/// All layers, in order.
fn layers<B: Backend>(loader: &mut Loader<'_, B>) -> Result<Vec<Layer<B>>> {
    let config = loader.config;
    let homes = shared_blocks(config, loader.weights);
    let mut blocks = Blocks::default();
    let (mut recurrent, mut attention) = (0, 0);
    let mut all = Vec::with_capacity(config.layers.len());
    for (index, &kind) in config.layers.iter().enumerate() {
        let names = config.format.layer(index, kind);
        let shared = match kind {
            LayerKind::Hybrid => {
                let (home, layer) = (&homes[attention], &names.prefix);
                let call = SharedCall::load(loader, &mut blocks, home, attention, layer)?;
                attention += 1;
                Some((call, attention - 1))
            }
            LayerKind::Recurrent | LayerKind::Attention => None,
        };
        let norm = loader.norm(&names.norm, config.d_model)?;
        let mixing = match (kind, config.attention) {
            (LayerKind::Attention, Some(parameters)) => {
                attention += 1;
                let layer = Attention::load(loader, parameters, &names.mixer)?;
                Mixing::Attention(layer, attention - 1)
            }
            _ => {
                recurrent += 1;
                Mixing::Recurrent(Mixer::load(loader, &names.mixer)?, recurrent - 1)
            }
        };
        let mlp = match config.d_intermediate {
            Some(inner) => Some(Mlp::load(loader, &names.prefix, inner)?),
            None => None,
        };
        all.push(Layer { shared, norm, mixing, mlp });
    }
    Ok(all)
}
