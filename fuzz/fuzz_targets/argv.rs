//! Command lines and the words of the launcher's variables.
#![no_main]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, ArgAction, Command, value_parser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let command = Command::new("x").args([
        Arg::new("debug").long("debug").action(ArgAction::SetTrue),
        Arg::new("mtu").long("mtu").value_parser(value_parser!(i64)),
        Arg::new("publish").long("publish").short('p').action(ArgAction::Append),
        Arg::new("on").long("on").value_parser(value_parser!(bool)),
    ]);
    let words: Vec<OsString> =
        data.split(|b| *b == 0).map(|w| OsStr::from_bytes(w).to_owned()).collect();
    if let Ok(normalized) = goflags::normalize(&command, words.clone()) {
        assert!(words.ends_with(&normalized.rest), "what follows the flags is verbatim");
        let _ = normalized.to_clap_args("x");
    }
    let _ = hostenv::shellwords::split(OsStr::from_bytes(data));
});
