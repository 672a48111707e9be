//! Answers of the server at the other end of an API socket: the same in any pieces.
#![no_main]

#[path = "../../crates/api/src/client/response.rs"]
mod response;

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;

/// Gives so many bytes at a time.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.1.min(buffer.len());
        self.0.read(&mut buffer[..size])
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    let whole = response::read(bytes).map_err(|error| error.kind());
    let pieces = Pieces(bytes, usize::from(*size) + 1);
    let in_pieces = response::read(pieces).map_err(|error| error.kind());
    assert_eq!(whole, in_pieces);
});
