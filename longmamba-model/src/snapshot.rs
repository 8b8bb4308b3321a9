//! A session on disk, to be continued by another process.
//!
//! A safetensors file: `layers.N.conv_history` f32 `[d_conv - 1, conv_dim]`, `layers.N.state` f32
//! ([`MixerConfig::state_shape`](crate::MixerConfig::state_shape)), `layers.N.delta_sum`,
//! `layers.N.kept_sum` f64 and `layers.N.kept` i64 `[channels]`, with N counting the recurrent layers;
//! `attention.N.keys` and `attention.N.values` f32 `[rows, kv_heads, head_dim]`, from the position that
//! the metadata says, and `attention.N.conv_history`, with N counting the attention layers; `logits`
//! f32 `[vocab]`; and metadata that binds it to model and plan.

use crate::backend::{Backend, DeltaSums, KV_PAGE};
use crate::cache::{KvCache, history_len};
use crate::checkpoint::{Checkpoint, LoadOptions, Placement};
use crate::model::Model;
use crate::sequence::state_lens;
use crate::session::{Session, SessionOptions};
use crate::{Error, Result, write_whole};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const FORMAT: &str = "longmamba-session";
const VERSION: u32 = 2;

/// What a snapshot says of itself, under the key `session` of the file's metadata.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Header {
    format: String,
    version: u32,
    model: String,
    /// A digest of the method and of the attention window; empty without either.
    plan: String,
    position: usize,
    total: Option<usize>,
    /// The position of the first row of keys and values.
    #[serde(default)]
    attention_first: usize,
}

/// Sixteen digits that tell contents apart.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

impl<B: Backend> Session<B> {
    fn plan_digest(&self) -> Result<String> {
        let identity = self.options.identity()?;
        Ok(if identity.is_empty() { identity } else { digest(identity.as_bytes()) })
    }

    /// Writes the session to a file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let config = self.model.config();
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            model: self.model.fingerprint().to_string(),
            plan: self.plan_digest()?,
            position: self.sequence.position,
            total: self.sequence.total,
            attention_first: self.sequence.caches.first().map_or(0, KvCache::first),
        };
        let (conv, ssm) = state_lens(&config.mixer);
        let channels = config.mixer.channels();
        let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (index, layer) in self.sequence.states.iter().enumerate() {
            let history = config.mixer.history_shape().to_vec();
            for (name, shape, len, buffer) in [
                ("conv_history", history, conv, &layer.conv_history),
                ("state", config.mixer.state_shape(), ssm, &layer.ssm),
            ] {
                let mut values = vec![0.0f32; len];
                self.model.backend().read(buffer, 0, &mut values)?;
                let bytes = bytemuck::cast_slice(&values).to_vec();
                parts.push((format!("layers.{index}.{name}"), Dtype::F32, shape, bytes));
            }
            let DeltaSums { delta_sum, kept_sum, kept } =
                &self.model.backend().read_sums(&layer.sums)?;
            for (name, dtype, bytes) in [
                ("delta_sum", Dtype::F64, bytemuck::cast_slice(delta_sum)),
                ("kept_sum", Dtype::F64, bytemuck::cast_slice(kept_sum)),
                ("kept", Dtype::I64, bytemuck::cast_slice(kept)),
            ] {
                parts.push((
                    format!("layers.{index}.{name}"),
                    dtype,
                    vec![channels],
                    bytes.to_vec(),
                ));
            }
        }
        if let Some(attention) = &config.attention {
            let mut push = |index: usize, name: &str, shape: Vec<usize>, values: &[f32]| {
                let bytes = bytemuck::cast_slice(values).to_vec();
                parts.push((format!("attention.{index}.{name}"), Dtype::F32, shape, bytes));
            };
            let (heads, head_dim) = (attention.kv_heads, attention.head_dim);
            let mut history = vec![0.0; history_len(attention)];
            for (index, cache) in self.sequence.caches.iter().enumerate() {
                let (_, keys, values) = cache.read(self.model.backend(), self.sequence.position)?;
                let shape = vec![keys.len() / cache.width(), heads, head_dim];
                push(index, "keys", shape.clone(), &keys);
                push(index, "values", shape, &values);
                self.model.backend().read(&cache.conv_history, 0, &mut history)?;
                push(index, "conv_history", vec![history.len()], &history);
            }
        }
        let logits = bytemuck::cast_slice(&self.sequence.logits).to_vec();
        parts.push(("logits".into(), Dtype::F32, vec![self.sequence.logits.len()], logits));

        let malformed =
            |e: &dyn std::fmt::Display| Error::malformed(path, format!("cannot be written: {e}"));
        let views = parts.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            view.map(|v| (name.as_str(), v)).map_err(|e| malformed(&e))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let header = serde_json::to_string(&header).map_err(|e| malformed(&e))?;
        let metadata = HashMap::from([("session".to_owned(), header)]);
        let file = safetensors::serialize(views, Some(metadata)).map_err(|e| malformed(&e))?;
        write_whole(path, &file)
    }

    /// Reads a session back. `options` must carry the plan or method that the session was saved with; the
    /// chunk length may differ.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] and the tensor errors for a damaged file; and
    /// [`Error::Malformed`] where the snapshot belongs to another model or method, saying which.
    pub fn load(model: &Arc<Model<B>>, options: SessionOptions, path: &Path) -> Result<Self> {
        let mut session = model.session(options)?;
        // Small, and its own file may be replaced while it is read: no map.
        let read = LoadOptions { placement: Some(Placement::Copy), check_finite: true };
        let mut file = Checkpoint::open(path, read)?;
        let header: Header = file
            .metadata("session")
            .and_then(|text| serde_json::from_str(text).ok())
            .filter(|h: &Header| h.format == FORMAT)
            .ok_or_else(|| Error::malformed(path, "not a saved session"))?;
        let refuse = |reason: String| Err(Error::malformed(path, reason));
        if header.version > VERSION {
            return refuse(format!(
                "saved by a newer version (format {}, known: {VERSION})",
                header.version
            ));
        }
        let fingerprint = model.fingerprint().to_string();
        if header.model != fingerprint {
            return refuse(format!(
                "saved with model {}, this is model {fingerprint}",
                header.model
            ));
        }
        let plan = session.plan_digest()?;
        if header.plan != plan {
            let name = |digest: String| match digest.is_empty() {
                true => "no method and no attention window".into(),
                false => format!("method and attention window {digest}"),
            };
            return refuse(format!(
                "saved with {}, continued with {}",
                name(header.plan),
                name(plan)
            ));
        }
        let mixer = &model.config().mixer;
        for (index, layer) in session.sequence.states.iter_mut().enumerate() {
            let name = |part: &str| format!("layers.{index}.{part}");
            let history = mixer.history_shape();
            let values = file.take_f32(&name("conv_history"), &history)?;
            model.backend().write(&values, &mut layer.conv_history)?;
            let values = file.take_f32(&name("state"), &mixer.state_shape())?;
            model.backend().write(&values, &mut layer.ssm)?;
            let channels = mixer.channels();
            let kept = file.take_integers(&name("kept"))?;
            let sums = DeltaSums {
                delta_sum: file.take_f64(&name("delta_sum"))?,
                kept_sum: file.take_f64(&name("kept_sum"))?,
                kept: kept.into_iter().map(|k| u64::try_from(k).unwrap_or(0)).collect(),
            };
            if [sums.delta_sum.len(), sums.kept_sum.len(), sums.kept.len()] != [channels; 3] {
                return refuse(format!(
                    "{} has another number of channels than the model",
                    name("kept")
                ));
            }
            model.backend().write_sums(&sums, &mut layer.sums)?;
        }
        // Beyond any sequence that was ever read, and so far that sums of positions would overflow.
        if header.position > usize::MAX / 2 {
            return refuse(format!("position {} is beyond any sequence", header.position));
        }
        let first = header.attention_first;
        // The oldest position that the last token saw: where pages begin after it, keys are missing.
        let window = session.options.attention_window.unwrap_or(usize::MAX);
        let oldest = header.position.saturating_sub(window);
        let rows = header.position.checked_sub(first);
        let rows = rows.filter(|_| first.is_multiple_of(KV_PAGE) && first <= oldest);
        let rows = rows.ok_or_else(|| {
            Error::malformed(path, format!("keys and values from position {first} do not fit"))
        })?;
        if let Some(attention) = &model.config().attention {
            let shape = [rows, attention.kv_heads, attention.head_dim];
            for (index, cache) in session.sequence.caches.iter_mut().enumerate() {
                let keys = file.take_f32(&format!("attention.{index}.keys"), &shape)?;
                let values = file.take_f32(&format!("attention.{index}.values"), &shape)?;
                cache.write(model.backend(), first, &keys, &values)?;
                let name = format!("attention.{index}.conv_history");
                let history = file.take_f32(&name, &[history_len(attention)])?;
                model.backend().write(&history, &mut cache.conv_history)?;
            }
        }
        let logits = file.take_f32("logits", &[session.sequence.logits.len()])?;
        session.sequence.logits.copy_from_slice(&logits);
        file.finish()?;
        (session.sequence.position, session.sequence.total) = (header.position, header.total);
        let Session { sequence, model, options, .. } = &mut session;
        sequence.resume_thresholds(model, options)?;
        Ok(session)
    }
}
