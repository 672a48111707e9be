//! TAP devices in the network namespace of the calling thread.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context as _;

pub(super) fn create(name: &str) -> anyhow::Result<OwnedFd> {
    let device = Path::new("/dev/net/tun");
    // Persistent: the interface, its addresses and its routes outlive this descriptor and every helper.
    sys::tap::create(device, name).with_context(|| {
        format!(
            "failed to create the network interface {name} with {}\nhint: make sure that the device exists and is writable for your user: sudo modprobe tun; sudo chmod 0666 {}",
            device.display(),
            device.display()
        )
    })
}
