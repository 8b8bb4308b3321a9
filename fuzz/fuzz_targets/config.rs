#![no_main]

use longmamba_model::Config;
use std::path::Path;

// What is accepted can be multiplied out.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = Config::parse(bytes, Path::new("fuzz")) else { return };
    let mixer = &config.mixer;
    let sizes = [mixer.channels(), mixer.d_inner(), mixer.conv_dim(), mixer.projected()];
    assert!(!sizes.contains(&0) && mixer.d_conv() > 0);
    assert!(mixer.state_shape().iter().product::<usize>() > 0);
    if let Some(attention) = &config.attention {
        assert!(attention.qkv_width() >= attention.q_width() + attention.kv_width());
        assert!(attention.kv_width() > 0);
    }
    assert!(config.recurrent_layers() + config.attention_layers() >= config.layers.len());
});
