#![no_main]

libfuzzer_sys::fuzz_target!(|scan: longmamba_fuzz::Scan| longmamba_fuzz::against_oracle(&scan));
