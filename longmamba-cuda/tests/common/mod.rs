//! The device that the tests run on.

use longmamba_cuda::Device;
use longmamba_cuda_emulator::driver_for_tests;
use std::sync::OnceLock;

/// The machine's first device; where there is no driver, or `LONGMAMBA_CUDA=emulator` is set, the
/// emulator's. Says once which one it is.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || {
        let driver = driver_for_tests().expect("the emulator lies beside the tests");
        let device = Device::new(0).expect("the driver has a device");
        println!("{driver}: {}", device.name());
        device
    };
    DEVICE.get_or_init(open).clone()
}
