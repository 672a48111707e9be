//! Features of links.

use std::io::ErrorKind;

use netlink::{Rt, ethtool::set_features};

use crate::netns::Netns;

#[test]
fn features_are_switched_by_name_and_what_is_unknown_is_named() {
    let _netns = Netns::enter_new();
    let mut rt = Rt::open().unwrap();
    rt.add_veth("one", "other", None, 1500).unwrap();
    for on in [false, true, true] {
        set_features("one", &[("tx-checksum-ip-generic", on), ("rx-gro", !on)]).unwrap();
    }
    let error = set_features("one", &[("tx-checksum-ip-generic", true), ("tx-magic", true)]);
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("ethtool -K one tx-checksum-ip-generic on tx-magic on: "), "{text}");
    let error = set_features("lo", &[("tx-checksum-ip-generic", false), ("rx-gro", true)]);
    let text = error.unwrap_err().to_string();
    assert!(text.ends_with("the link cannot change tx-checksum-ip-generic"), "{text}");
    let error = set_features("nobody", &[("rx-gro", true)]).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::NotFound) || error.to_string().contains("No such device"),
        "{error}"
    );
}
