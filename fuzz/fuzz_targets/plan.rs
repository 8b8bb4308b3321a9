#![no_main]

use longmamba_core::policy::{Lookup, Plan};

// What is read is written as the same plan, and gives thresholds that a scan accepts.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(plan) = Plan::from_bytes(bytes) else { return };
    assert_eq!(Plan::from_bytes(&plan.to_bytes()).as_ref(), Ok(&plan));
    let mut delta_min = vec![0.0; plan.fingerprint().channels];
    for (layer, lookup) in [(0, Lookup::Nearest), (plan.layers().len() - 1, Lookup::Interpolated)] {
        for total_len in [0, 1, 2999, 100_000, usize::MAX] {
            plan.delta_min(layer, total_len, lookup, 1.0, &mut delta_min).unwrap();
            assert!(delta_min.iter().all(|g| *g >= 0.0), "{delta_min:?}");
        }
    }
    let report = plan.theta_report();
    assert!(report.global() <= report.channels);
});
