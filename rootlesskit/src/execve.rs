//! Words and environments in the form that execve(2) takes.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use anyhow::Context as _;
use hostenv::Env;

pub(crate) fn c_string(word: &OsStr) -> anyhow::Result<CString> {
    CString::new(word.as_bytes()).with_context(|| format!("{word:?} contains a NUL byte"))
}

pub(crate) fn environ(env: &Env) -> anyhow::Result<Vec<CString>> {
    env.iter()
        .map(|(name, value)| {
            let mut line = name.to_owned().into_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            Ok(CString::new(line)?)
        })
        .collect()
}
