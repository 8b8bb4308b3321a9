//! mamba-rs in f32: its sequence pass for prompts, its step for single tokens, its head on the last token.

#[path = "../../../../src/bin/speed/cells.rs"]
mod cells;

use cells::{Engine, Options, Result, run};
use mamba_rs::ModelFamily;
use mamba_rs::hf::embed::{embed_lookup, lm_head_logits};
use mamba_rs::hf::{load_mamba, load_mamba2, read_family};
use mamba_rs::module::lm::{AnyBackbone, AnyScratch, AnyState};
use mamba_rs::module::{Mamba2Backbone, MambaBackbone};

struct MambaRs {
    backbone: AnyBackbone,
    state: AnyState,
    scratch: AnyScratch,
    /// `[vocab, d_model]`, which is the head, too.
    embed: Vec<f32>,
    vocab: usize,
    inputs: Vec<f32>,
    outputs: Vec<f32>,
    logits: Vec<f32>,
    logits_scratch: Vec<f32>,
}

fn main() -> Result<()> {
    run("mamba-rs", load)
}

fn load(options: &Options) -> Result<MambaRs> {
    if std::env::var("RAYON_NUM_THREADS").ok() != Some(options.threads.to_string()) {
        return Err("set RAYON_NUM_THREADS to the number of threads".into());
    }
    if options.dtype != "f32" || options.chunk.is_some() || options.compute.is_some() {
        return Err("on the CPU mamba-rs computes in f32, whole prompts at once".into());
    }
    let (mut backbone, embed, head, vocab) = match read_family(&options.model)? {
        ModelFamily::Mamba1 => {
            let m = load_mamba(&options.model)?;
            let width = m.cfg.d_model;
            let backbone = MambaBackbone::new(m.weights, m.cfg, width)?;
            (AnyBackbone::from(backbone), m.embed, m.lm_head, m.vocab_size)
        }
        ModelFamily::Mamba2 => {
            let m = load_mamba2(&options.model)?;
            let width = m.cfg.d_model;
            let backbone = Mamba2Backbone::new(m.weights, m.cfg, width)?;
            (AnyBackbone::from(backbone), m.embed, m.lm_head, m.vocab_size)
        }
        other => return Err(format!("no shape of {other:?} is compared").into()),
    };
    if head.is_some() {
        return Err("the head must be tied".into());
    }
    // Its documentation recommends this for single tokens of large layers.
    backbone.pack_for_decode();
    let rows = embed.len() / backbone.d_model();
    Ok(MambaRs {
        state: backbone.alloc_state(),
        scratch: backbone.alloc_scratch(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        logits: vec![0.0; vocab],
        logits_scratch: vec![0.0; rows],
        backbone,
        embed,
        vocab,
    })
}

impl MambaRs {
    /// The head on the last row of the outputs.
    fn head(&mut self) {
        let width = self.backbone.d_model();
        let last = self.outputs.len() - width;
        lm_head_logits(
            &mut self.logits,
            &self.outputs[last..],
            &self.embed,
            self.vocab,
            self.embed.len() / width,
            width,
            &mut self.logits_scratch,
        );
    }

    fn embed(&mut self, tokens: &[u32]) {
        let width = self.backbone.d_model();
        self.inputs.clear();
        for &token in tokens {
            self.inputs.extend_from_slice(embed_lookup(&self.embed, token, width, self.vocab));
        }
        self.outputs.resize(self.inputs.len(), 0.0);
    }
}

impl Engine for MambaRs {
    fn reset(&mut self) -> Result<()> {
        self.state.reset();
        Ok(())
    }

    fn prefill(&mut self, tokens: &[u32]) -> Result<()> {
        self.embed(tokens);
        let MambaRs { backbone, state, scratch, inputs, outputs, .. } = self;
        backbone.forward_sequence(inputs, outputs, state, scratch, tokens.len());
        self.head();
        Ok(())
    }

    fn step(&mut self, token: u32) -> Result<()> {
        self.embed(&[token]);
        let MambaRs { backbone, state, scratch, inputs, outputs, .. } = self;
        backbone.forward_step(inputs, outputs, state, scratch);
        self.head();
        Ok(())
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        Ok(self.logits.clone())
    }
}
