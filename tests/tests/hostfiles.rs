//! Files of the host that are no files, or have no end: a start says so, at once.

use tests::{Result, Suite, TestBox, ensure};

/// What is in the place of the file, and what the error says of it.
const KINDS: [(&str, &str); 6] = [
    ("mkfifo $F", "it is a FIFO, not a regular file"),
    ("mkfifo /etc/fifo; ln -s fifo $F", "it is a FIFO, not a regular file"),
    ("ln -s /dev/zero $F", "it is a device, not a regular file"),
    ("mkdir $F", "is a directory"),
    ("ln -s $(basename $F) $F", "Too many levels of symbolic links"),
    ("truncate -s 1T $F", "larger than the limit of 67108864 bytes"),
];

#[test]
fn host_files_that_cannot_be_read_end_a_start_at_once_and_are_named() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/subuid"] {
        for (make, wanted) in KINDS {
            let prepare = format!("F={file}; cp -a $F /etc/saved && rm $F && {make}");
            b.root(&prepare).ok()?;
            let start = b
                .user("rootlesskit --net=slirp4netns --subid-source=static --copy-up=/etc true")
                .limit(20)
                .run()?;
            b.root(&format!("rm -rf {file} /etc/fifo; mv /etc/saved {file}")).ok()?;
            ensure!(start.code == 1, "{file}, {make}: {start}");
            ensure!(
                start.stderr.contains(file) && start.stderr.contains(wanted),
                "{file}, {make}: {start}"
            );
            b.assert_clean(&[])?;
        }
    }
    b.user("rootlesskit --net=slirp4netns --copy-up=/etc true").ok()?;
    // The launcher passes over what dockerd could not read either, but does not wait for it.
    b.root("mkdir -p /home/tester/.config/docker && mkfifo /home/tester/.config/docker/daemon.json && chown -R tester: /home/tester/.config").ok()?;
    b.user("dockerd-rootless-setuptool.sh check --json").limit(60).run().map(drop)
}
