//! Pairs that are refused.

use tests::Result;

use crate::kit::Host;

/// What an error of the parent begins with.
const PREFIX: &str = "[rootlesskit:parent] error: ";

/// Why rootlesskit refuses this pair; nothing if it does not.
pub(crate) fn text(host: &Host, port: &str) -> Result<Option<String>> {
    let line = format!("rootlesskit --net={} --port-driver={port} true", host.network);
    let out = host.b.user(&line).run()?;
    host.assert_clean()?;
    if out.code == 0 {
        return Ok(None);
    }
    reason(&out.stderr, out.code, &out.to_string()).map(Some)
}

/// The reason among what rootlesskit printed before it ended with status 1.
pub(crate) fn reason(stderr: &str, code: i32, all: &str) -> Result<String> {
    let at = stderr.find(PREFIX).filter(|_| code == 1);
    let at = at.ok_or_else(|| tests::Error::msg(format!("not a refusal: {all}")))?;
    Ok(stderr[at + PREFIX.len()..].trim().replace('\n', "; "))
}
