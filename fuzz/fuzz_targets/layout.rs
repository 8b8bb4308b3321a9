#![no_main]

libfuzzer_sys::fuzz_target!(|steps: longmamba_fuzz::Steps| {
    longmamba_fuzz::against_index_arithmetic(steps);
});
