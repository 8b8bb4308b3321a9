#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| longmamba_fuzz::take_all(bytes));
