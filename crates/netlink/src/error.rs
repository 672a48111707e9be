//! One error type: what was attempted, on what, and what the kernel said.

use std::io;

/// The result of an operation on the network configuration.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation; displays as `set mtu 70000 on link 2: Invalid argument (os error 22)`.
///
/// The cause is part of the text and therefore not offered again as [`std::error::Error::source`].
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {cause}")]
pub struct Error {
    operation: String,
    cause: io::Error,
}

impl Error {
    pub(crate) fn new(operation: impl Into<String>, cause: io::Error) -> Self {
        Self { operation: operation.into(), cause }
    }

    /// The `errno` of the kernel, if the kernel was the one who refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.cause.raw_os_error()
    }

    /// The kind of the cause, e.g. [`io::ErrorKind::NotFound`] for a link that does not exist.
    pub fn kind(&self) -> io::ErrorKind {
        self.cause.kind()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.cause.kind(), error)
    }
}

/// Names the operation that an [`io::Result`] belongs to.
pub(crate) trait During<T> {
    /// Wraps the error; the text is only made when there is one.
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during<S: Into<String>>(self, operation: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|cause| Error::new(operation(), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_operation_and_reason_once() {
        let error = Error::new("set mtu 70000 on tap0", io::Error::from_raw_os_error(22));
        assert_eq!(error.to_string(), "set mtu 70000 on tap0: Invalid argument (os error 22)");
        assert_eq!(error.raw_os_error(), Some(22));
        assert_eq!(
            io::Error::from(error).to_string(),
            "set mtu 70000 on tap0: Invalid argument (os error 22)"
        );
    }
}
