//! Files that somebody else has made: read as data, whatever is there.
//!
//! A FIFO or a device in the place of a file must neither hold us up nor fill our memory, and opening one may have effects
//! of its own (a watchdog, a tape). So only regular files are opened, without waiting, and there is an end to what is read.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// The longest file that is read, in bytes. Lists of blocked hosts in `/etc/hosts` have tens of megabytes.
pub const LIMIT: u64 = 64 << 20;

/// Opens a regular file for reading; symlinks are followed.
///
/// # Errors
/// Those of stat(2) and open(2), and for anything that is no regular file. They do not name the path.
pub fn open(path: &Path) -> io::Result<File> {
    regular(&fs::metadata(path)?)?;
    // It may have been replaced meanwhile.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Whether this open file is the one that is `there`, at its path: it may have been removed or replaced.
pub fn is_same(file: &File, there: io::Result<Metadata>) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), there) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// The content of a regular file of at most [`LIMIT`] bytes.
///
/// # Errors
/// Those of [`open`] and read(2), and for a file that is longer. They do not name the path.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, LIMIT)
}

/// As [`read`], with another limit in bytes.
///
/// # Errors
/// Those of [`read`].
pub fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more shows that there is more. Files of the kernel have no length that could be asked for.
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(bytes);
    }
    Err(io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("the file is larger than the limit of {limit} bytes"),
    ))
}

/// As [`read`], with U+FFFD for what is not UTF-8.
///
/// # Errors
/// Those of [`read`].
pub fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

/// The text of a configuration of dockerd in UTF-8, without its byte order mark, which says how it is encoded; dockerd takes
/// all of these since 23.0 (<https://github.com/moby/moby/pull/44770>).
pub fn without_byte_order_mark(bytes: Vec<u8>) -> Vec<u8> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks(2).map(|pair| match pair {
            [a, b] => unit([*a, *b]),
            // Half a character is none.
            _ => 0xfffd,
        });
        String::from_utf16_lossy(&units.collect::<Vec<_>>()).into_bytes()
    };
    match &bytes[..] {
        [0xef, 0xbb, 0xbf, rest @ ..] => rest.to_vec(),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => bytes,
    }
}

fn regular(meta: &Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::other(format!("it is {what}, not a regular file")))
}

/// Removes a file; that there is none is fine. True if there was one.
///
/// # Errors
/// Those of unlink(2).
pub fn remove_if_present(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn whatever_is_in_the_place_of_a_file_neither_hangs_nor_fills_memory() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        symlink("fifo", at("to-fifo")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink("loop", at("loop")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        for (name, wanted) in [
            ("fifo", "a FIFO, not a regular file"),
            ("to-fifo", "a FIFO"),
            ("zero", "a device"),
            ("socket", "a socket"),
            ("dir", "is a directory"),
            ("loop", "symbolic link"),
            ("huge", "the limit of 67108864 bytes"),
            ("none", "No such file"),
        ] {
            let error = read(&at(name)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }

    #[test]
    fn the_limit_is_the_last_length_that_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read_at_most(&file, 5).unwrap(), b"12345");
        assert!(read_at_most(&file, 4).unwrap_err().to_string().contains("the limit of 4 bytes"));
        // Has no length.
        assert!(text(Path::new("/proc/self/status")).unwrap().contains("Name:"));
    }

    proptest! {
        #[test]
        fn every_encoding_of_a_text_is_the_text(text in any::<String>()) {
            let utf16 = |unit: fn(u16) -> [u8; 2]| {
                "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect::<Vec<_>>()
            };
            let marked = format!("\u{feff}{text}").into_bytes();
            for bytes in [marked, utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
                prop_assert_eq!(without_byte_order_mark(bytes), text.as_bytes());
            }
        }

        #[test]
        fn bytes_without_a_mark_stay(bytes: Vec<u8>) {
            prop_assume!(!matches!(&bytes[..], [0xef, 0xbb, 0xbf, ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..]));
            prop_assert_eq!(without_byte_order_mark(bytes.clone()), bytes);
        }
    }
}
