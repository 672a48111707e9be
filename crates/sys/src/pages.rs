//! Memory of buffers that is not needed for now.

use nix::errno::Errno;
use nix::unistd::{SysconfVar, sysconf};

/// Zeroes whole pages of a buffer, which then take no memory (madvise(2), `MADV_DONTNEED`).
pub(crate) fn discard(buffer: &mut [u8]) {
    let Ok(Some(page)) = sysconf(SysconfVar::PAGE_SIZE) else { return };
    let page = usize::try_from(page).unwrap_or(usize::MAX);
    let skipped = buffer.as_ptr().align_offset(page);
    let Some(aligned) = buffer.get_mut(skipped..) else { return };
    let length = aligned.len() / page * page;
    // SAFETY: the pages are exclusively borrowed memory of the allocator, so private and not of a file: they become zeroes.
    let done = unsafe { libc::madvise(aligned.as_mut_ptr().cast(), length, libc::MADV_DONTNEED) };
    // Pages that are locked stay (mlock(2)), which does no harm.
    let _: nix::Result<libc::c_int> = Errno::result(done);
}
