//! Tokens that are drawn on the device, against those that the processor draws.

use super::common::{self, Shape, VOCAB, assert_close, random_tokens, safetensors_file};
use super::{CUDA, FAMILIES, ROUNDING, model, on_cpu, options};
use longmamba_model::{
    Backend, Columns, Ended, Error, GenerateOptions, Model, SampleOptions, Sampler, Session,
    decode, generate,
};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Greedy, each filter alone, and all.
fn samplings() -> [SampleOptions; 6] {
    let all = SampleOptions { temperature: 1.3, ..Default::default() };
    [
        SampleOptions { banned: vec![0, 3, 999], ..Default::default() },
        SampleOptions { seed: 1, ..all.clone() },
        SampleOptions { seed: 2, top_k: Some(9), ..all.clone() },
        SampleOptions { seed: 3, top_p: 0.7, ..all.clone() },
        SampleOptions { seed: 4, min_p: 0.2, ..all.clone() },
        SampleOptions {
            seed: 5,
            top_k: Some(40),
            top_p: 0.95,
            min_p: 0.01,
            banned: vec![5],
            ..all
        },
    ]
}

/// The prompt, and `count` tokens after it.
fn continued<B: Backend>(
    model: &Arc<Model<B>>,
    sampling: SampleOptions,
    count: usize,
) -> (Session<B>, Vec<u32>) {
    let mut session = model.session(options(16)).unwrap();
    let mut sampler = Sampler::new(sampling).unwrap();
    let until = GenerateOptions { max_new: count, stop: Vec::new() };
    let mut tokens = Vec::new();
    let done = generate(&mut session, &random_tokens(1, 20), &mut sampler, &until, |token| {
        tokens.push(token);
        ControlFlow::Continue(())
    });
    assert_eq!((done.unwrap().new.tokens, tokens.len()), (count, count));
    (session, tokens)
}

/// The same tokens; and what is asked of the session afterwards is that of the last token that it read,
/// whether it is read from the device, saved, forked or continued.
#[test]
fn tokens_and_what_is_left_are_those_of_the_processor() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (index, folder) in FAMILIES.into_iter().enumerate() {
        let (gpu, cpu) = (model(folder), on_cpu(folder));
        // Two for each family.
        for sampling in samplings().into_iter().skip(index % 3).step_by(3) {
            let what = format!("{folder}, {sampling:?}");
            let banned = sampling.banned.clone();
            let (mut on_gpu, tokens) = continued(&gpu, sampling.clone(), 12);
            let (mut on_cpu, expected) = continued(&cpu, sampling, 12);
            assert_eq!(tokens, expected, "{what}");
            assert!(!tokens.iter().any(|t| banned.contains(t)), "{what}");
            assert_eq!(on_gpu.position(), on_cpu.position());
            assert_close(on_gpu.logits(), on_cpu.logits(), ROUNDING, &what);
            // A recording that did not serve the last steps would not be there.
            assert!(format!("{on_gpu:?}").contains("graph: Some"), "{what}");

            on_gpu.save(file.path()).unwrap();
            let loaded = Session::load(&cpu, options(16), file.path()).unwrap();
            let mut fork = on_gpu.fork().unwrap();
            assert_eq!((fork.logits(), loaded.logits()), (on_gpu.logits(), on_gpu.logits()));
            // Not the token that was drawn last, which is still on the device.
            let other = (tokens[11] + 1) % 61;
            for session in [&mut on_gpu, &mut fork] {
                session.step(other).unwrap();
            }
            on_cpu.step(other).unwrap();
            assert_close(on_gpu.logits(), on_cpu.logits(), ROUNDING, &what);
            assert_close(fork.logits(), on_cpu.logits(), ROUNDING, &what);
        }
    }
}

/// Whatever ends a generation, the logits are those of the last token read.
#[test]
fn every_end_leaves_the_logits() {
    let gpu = model("mamba-hf");
    let (_, tokens) = continued(&gpu, SampleOptions { temperature: 9.0, ..Default::default() }, 4);
    let mut expected = gpu.session(options(16)).unwrap();
    expected.prefill(&random_tokens(1, 20)).unwrap();
    for &token in &tokens[..3] {
        expected.step(token).unwrap();
    }
    let ended = |stop: Vec<u32>, break_at: usize, panic_at: usize| {
        let mut session = gpu.session(options(16)).unwrap();
        session.prefill(&random_tokens(1, 20)).unwrap();
        let sampling = SampleOptions { temperature: 9.0, ..Default::default() };
        let mut sampler = Sampler::new(sampling).unwrap();
        let until = GenerateOptions { max_new: 4, stop };
        let mut count = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            decode(&mut session, &mut sampler, &until, |_| {
                count += 1;
                assert_ne!(count, panic_at, "as asked");
                if count == break_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        }));
        (session, result.ok().map(|r| r.unwrap().1))
    };
    for (stop, break_at, end) in
        [(vec![], 0, Ended::MaxNew), (vec![], 4, Ended::Caller), (vec![tokens[3]], 0, Ended::Stop)]
    {
        let (session, how) = ended(stop, break_at, 0);
        assert_eq!(how, Some(end));
        assert_close(session.logits(), expected.logits(), 1e-6, &format!("{end:?}"));
    }
    // Nobody reads them after a panic: they are nothing then, and not an older token's.
    let (mut session, how) = ended(vec![], 0, 4);
    assert_eq!((how, session.position()), (None, expected.position()));
    assert!(session.logits().iter().all(|l| l.is_nan()));
    session.step(7).unwrap();
    expected.step(7).unwrap();
    assert_close(session.logits(), expected.logits(), 1e-6, "after a panic");
}

/// A model whose logits overflow after token 5: the error names the same token and value.
#[test]
fn a_logit_that_is_no_number_is_named() {
    let shape = Shape {
        mamba2: false,
        seed: 1,
        d_model: 8,
        layers: 1,
        d_state: 4,
        d_conv: 4,
        groups: 1,
        head_dim: 8,
        bias: false,
        tied: false,
    };
    let mut tensors = shape.tensors();
    for (name, _, values) in &mut tensors {
        match name.as_str() {
            "backbone.embeddings.weight" => {
                values.chunks_mut(8).for_each(|row| row[0] = 0.0);
                values[5 * 8] = 90.0;
            }
            "lm_head.weight" => {
                let row = &mut values[23 * 8..24 * 8];
                row.fill(0.0);
                row[0] = 2e38;
            }
            // Nothing but the embedding reaches the head.
            name if name.ends_with("out_proj.weight") => values.fill(0.0),
            "backbone.norm_f.weight" => values.fill(1.0),
            _ => {}
        }
    }
    let banned: Vec<u32> = (0..VOCAB as u32).filter(|&t| t != 5).collect();
    let file = Arc::new(safetensors_file(&tensors));
    let config = shape.config();
    fn fails<B: Backend>(
        config: &str,
        file: Arc<Vec<u8>>,
        banned: &[u32],
        backend: B,
    ) -> (String, Vec<u32>, Vec<f32>) {
        let model = Model::from_bytes(config.as_bytes(), file, "overflows", backend).unwrap();
        let mut session = model.session(options(16)).unwrap();
        let sampling = SampleOptions { banned: banned.to_vec(), ..Default::default() };
        let mut sampler = Sampler::new(sampling).unwrap();
        let until = GenerateOptions { max_new: 9, stop: Vec::new() };
        let mut tokens = Vec::new();
        let error = generate(&mut session, &[1, 2], &mut sampler, &until, |token| {
            tokens.push(token);
            ControlFlow::Continue(())
        });
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Logit { token: 23, value: f32::INFINITY }), "{error}");
        (error.to_string(), tokens, session.logits().to_vec())
    }
    let on_gpu = fails(&config, file.clone(), &banned, CUDA.clone());
    let on_cpu = fails(&config, file, &banned, common::backend());
    assert_eq!((&on_gpu.0, &on_gpu.1), (&on_cpu.0, &on_cpu.1));
    assert_eq!(on_gpu.1, [5]);
    assert_eq!(on_gpu.2[23], f32::INFINITY);
}

/// One row of logits, with what no draw may see on both sides.
fn draw(logits: &[f32], options: &SampleOptions, uniform: f64) -> Option<u32> {
    let row = [&[1e30], logits, &[f32::NAN, 1e30]].concat();
    let mut buffer = CUDA.buffer(row.len()).unwrap();
    CUDA.write(&row, &mut buffer).unwrap();
    let row = Columns::all(&buffer, row.len()).part(1, logits.len());
    let mut scratch = Default::default();
    let drawn = CUDA.sample(&mut scratch, row, options, uniform).unwrap();
    // The logits are as they were, for whoever asks for them.
    let mut after = vec![0.0; logits.len()];
    CUDA.read(&buffer, 1, &mut after).unwrap();
    let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&after), bits(logits));
    // The same again, out of a scratch that has been used.
    assert_eq!(CUDA.sample(&mut scratch, row, options, uniform).unwrap(), drawn);
    drawn
}

#[test]
fn what_is_an_error_is_left_to_the_host() {
    let out = f32::NEG_INFINITY;
    for temperature in [0.0, 1.0] {
        let all = SampleOptions { temperature, ..Default::default() };
        let banned = SampleOptions { banned: vec![0, 1], ..all.clone() };
        for (logits, options) in [
            ([1.0, 2.0, f32::NAN], &all),
            ([1.0, f32::INFINITY, 0.0], &all),
            ([out; 3], &all),
            ([1.0, 2.0, out], &banned),
            ([f32::NAN, 2.0, 1.0], &banned),
        ] {
            assert_eq!(draw(&logits, options, 0.5), None, "{logits:?}");
            let mut host = Sampler::new(options.clone()).unwrap();
            assert!(host.sample_at(&logits, 0.5).is_err(), "{logits:?}");
        }
        assert_eq!(draw(&[1.0, 2.0, -9.0], &banned, 0.5), Some(2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The same token for the same number, or where the number is within rounding of a token's end, the
    /// next one.
    #[test]
    fn a_number_draws_the_same_token_on_both(
        // Few values, so that there are many equals.
        logits in prop::collection::vec(prop_oneof![-8.0f32..8.0, (-3i8..4).prop_map(f32::from)], 1..600),
        temperature in prop_oneof![1 => Just(0.0f32), 6 => 0.2f32..3.0],
        top_k in prop::option::of(1usize..100),
        top_p in prop_oneof![Just(1.0f32), 0.01f32..0.999],
        min_p in prop_oneof![Just(0.0f32), 0.0f32..0.5],
        banned in prop::collection::vec(0u32..700, 0..3),
        uniform in 0.0f64..1.0,
    ) {
        let options = SampleOptions { temperature, top_k, top_p, min_p, banned, seed: 0 };
        let mut host = Sampler::new(options.clone()).unwrap();
        let nearby = [0.0, -1e-6, 1e-6].map(|d| host.sample_at(&logits, uniform + d).ok());
        let drawn = draw(&logits, &options, uniform);
        prop_assert!(nearby.contains(&drawn), "{drawn:?}, not one of {nearby:?}");
    }
}
