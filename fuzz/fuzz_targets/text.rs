//! Texts of others that `check` and `install` look at or print: the journal, output of programs, names, edited units.
#![no_main]
#![allow(dead_code, reason = "the program uses all of it")]

#[path = "../../crates/doctor/src/header.rs"]
mod header;
#[path = "../../crates/doctor/src/symptoms/mod.rs"]
mod symptoms;

use std::ffi::OsStr;

use hostenv::shellwords::{quoted, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = symptoms::find(&text);
    let short = hostenv::helper::excerpt(&text, 20);
    assert!(short.chars().count() <= 21);
    if !text.contains('\0') {
        // What is shown to be pasted into a shell is one word there.
        let words = split(OsStr::new(&quoted(&*text)));
        assert_eq!(words.ok(), Some(vec![text.clone().into_owned().into()]));
    }
    let sealed = header::sealed(&format!("{}{text}", header::HEADER));
    assert!(header::is_sealed(&sealed));
    let _ = header::is_sealed(&text);
});
