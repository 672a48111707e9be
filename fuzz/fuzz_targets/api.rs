//! Bodies of the REST API and port specs, in the form of either side of the socket.
#![no_main]

use api::types::from_json;
use api::{ErrorMessage, Info, PortSpec, PortStatus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = from_json::<Info>(data);
    let _ = from_json::<Vec<PortStatus>>(data);
    let _ = from_json::<ErrorMessage>(data);
    if let Ok(spec) = from_json::<PortSpec>(data) {
        let _ = spec.validate();
        // What we send, we understand.
        let again = from_json::<PortSpec>(api::types::to_json(&spec).as_bytes());
        assert_eq!(again.ok(), Some(spec));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(spec) = text.parse::<PortSpec>()
        && spec.validate().is_ok()
    {
        assert_eq!(spec.to_string().parse::<PortSpec>().ok(), Some(spec));
    }
});
