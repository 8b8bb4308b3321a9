//! Steps take no memory of the device, but for new pages of keys and values.
#![cfg(feature = "cuda")]

mod common;

use common::{fixture, random_tokens};
use longmamba_cuda_emulator::{TestDriver, driver_for_tests};
use longmamba_model::{CudaBackend, KV_PAGE, Model, SessionOptions};

/// One test in this binary: the device counts what all threads take.
#[test]
fn steps_allocate_nothing_on_the_device() {
    if driver_for_tests().unwrap() == TestDriver::Real {
        println!("skipped: other programs may use the GPU");
        return;
    }
    for folder in ["zamba2-hf-2block-rope", "original-mamba2attn", "mamba2-hf"] {
        let backend = CudaBackend::new(0).unwrap();
        let model = Model::load(&fixture(folder), backend).unwrap();
        let free = || model.backend().device().memory().unwrap().0;
        let attention_window = Some(KV_PAGE);
        let options =
            SessionOptions { chunk_len: Some(64), attention_window, ..Default::default() };
        let mut session = model.session(options).unwrap();
        session.prefill(&random_tokens(1, KV_PAGE + 64)).unwrap();
        for token in 0..3 {
            session.step(token).unwrap();
        }
        let (before, held) = (free(), session.memory());
        for token in random_tokens(2, 20) {
            session.step(token).unwrap();
        }
        // To where the window lets go of the first page, which is then used again.
        session.prefill(&random_tokens(3, KV_PAGE - 90)).unwrap();
        for token in random_tokens(4, 20) {
            session.step(token).unwrap();
        }
        assert!(session.position() > 2 * KV_PAGE);
        assert_eq!((free(), session.memory()), (before, held), "{folder}");
        // What is taken is seen.
        let fork = session.fork().unwrap();
        assert!(free() < before, "{folder}");
        drop(fork);
    }
}
