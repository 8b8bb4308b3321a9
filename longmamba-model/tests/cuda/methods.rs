//! Training-free methods read alike on both devices.

use super::{FAMILIES, common, options};
use common::{assert_close, plan, random_tokens};
use longmamba_model::SessionOptions;
use longmamba_model::methods::{
    DeciMamba, Lamb, MambaExtend, Method, Modulation, Scaled, Scales, Tuning, Winsorize,
};
use std::sync::Arc;

#[test]
fn methods_agree() {
    for folder in FAMILIES {
        let (gpu, cpu) = (super::model(folder), super::on_cpu(folder));
        let tokens = random_tokens(11, 40);
        let scales = |scaled| {
            let layers = cpu.config().recurrent_layers();
            let factors = (0..layers).map(|layer| 0.5 + 0.25 * layer as f32).collect();
            let tuning = Tuning { length: 60, windows: 1, labels: 1, seed: 0 };
            Scales::new(scaled, cpu.fingerprint().clone(), factors, tuning, Vec::new()).unwrap()
        };
        let mut methods: Vec<Arc<dyn Method>> = vec![
            Arc::new(MambaExtend::new(scales(Scaled::Delta)).unwrap()),
            Arc::new(Modulation::new(scales(Scaled::Rates)).unwrap()),
            Arc::new(Winsorize::new(20.0, 80.0).unwrap()),
            Arc::new(Lamb::new(plan(&cpu), 4, true).unwrap()),
        ];
        if cpu.config().attention.is_none() {
            let default = DeciMamba::new(cpu.config());
            let deci = DeciMamba { layers: vec![1], base: 12, last: 5, ..default };
            methods.push(Arc::new(deci));
        }
        let mut vanilla = cpu.session(options(16)).unwrap();
        vanilla.prefill(&tokens).unwrap();
        for method in methods {
            let name = method.name();
            let options = SessionOptions { method: Some(method), ..options(16) };
            let mut on_gpu = gpu.session(options.clone()).unwrap();
            let mut on_cpu = cpu.session(options).unwrap();
            on_gpu.prefill(&tokens).unwrap();
            on_cpu.prefill(&tokens).unwrap();
            assert_ne!(on_cpu.logits(), vanilla.logits(), "{folder}, {name}");
            for token in [3, 1] {
                assert_close(on_gpu.logits(), on_cpu.logits(), 5e-4, &format!("{folder}, {name}"));
                on_gpu.step(token).unwrap();
                on_cpu.step(token).unwrap();
            }
        }
    }
}
