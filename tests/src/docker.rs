//! A rootless Docker in a box: start, a small image made on the spot, stop.

use anyhow::{Context, Result, bail};

use crate::{PATIENCE, Running, Suite, TestBox, paths, wait};

/// Makes the tree of the image `bb` in the folder `$d` from the static busybox of the box.
macro_rules! tree {
    () => {
        r#"set -e
d=$(mktemp -d); trap 'rm -rf $d' EXIT; mkdir -p $d/bin $d/etc $d/tmp $d/www $d/root
cp "$(command -v busybox)" $d/bin/; chmod 755 $d; chmod 1777 $d/tmp
for a in $(busybox --list); do [ $a = busybox ] || ln -sf busybox $d/bin/$a; done
echo root:x:0:0::/root:/bin/sh > $d/etc/passwd; echo hello-from-container > $d/www/index.html
"#
    };
}

/// A shell script for the user that makes the image `bb` from the static busybox of the box. `/www/index.html` is a page
/// to serve.
pub const MAKE_IMAGE: &str =
    concat!(tree!(), r#"tar -C $d -c . | docker import -c 'CMD ["/bin/sh"]' - bb:latest"#);

/// A shell script that writes the same image to standard output, as `docker save` would.
pub const MAKE_ARCHIVE: &str = concat!(
    tree!(),
    r#"i=$(mktemp -d); trap 'rm -rf $d $i' EXIT; tar -C $d -cf $i/layer.tar .
sum=$(sha256sum $i/layer.tar); sum=${sum%% *}
echo '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/bin:/bin"],"Cmd":["/bin/sh"]},
    "rootfs":{"type":"layers","diff_ids":["sha256:'$sum'"]}}' > $i/config.json
echo '[{"Config":"config.json","RepoTags":["docker.io/library/bb:latest"],"Layers":["layer.tar"]}]' > $i/manifest.json
tar -C $i -c manifest.json config.json layer.tar"#
);

/// Paths that dockerd itself leaves after a clean stop, whoever started it.
pub const LEFT_BY_DOCKERD: &[&str] = &[
    "/run/user/1001/docker",
    "/run/user/1001/runc",
    "/home/tester/.docker",
    "/home/tester/.config",
];

/// What the version of the dockerd in a box of `suite` begins with.
///
/// # Errors
/// The dockerd under test does not tell its version.
pub fn version(suite: Suite) -> Result<String> {
    let debians = match suite {
        Suite::Bullseye => "20.10.5",
        Suite::Bookworm => "20.10.24",
        Suite::Trixie => "26.1.5",
        Suite::Sid => "28.5",
    };
    let given = paths::dockerd_under_test()?.filter(|_| suite == Suite::Sid);
    let Some(given) = given else { return Ok(debians.to_owned()) };
    let out = std::process::Command::new(&given).arg("--version").output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let version = text.strip_prefix("Docker version ").and_then(|rest| rest.split(',').next());
    Ok(version.with_context(|| format!("{} says {text:?}", given.display()))?.to_owned())
}

/// A started dockerd.
#[derive(Debug)]
pub struct Docker<'b> {
    tb: &'b TestBox,
    daemon: Running<'b>,
}

impl<'b> Docker<'b> {
    /// Starts `dockerd-rootless.sh` as the user with some variables set, and waits until it answers.
    ///
    /// # Errors
    /// It ended, or does not answer within 60 seconds; the message holds its log.
    pub fn start(tb: &'b TestBox, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(tb, "dockerd-rootless.sh", env)
    }

    /// Like [`start`](Self::start) with another command.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(tb: &'b TestBox, command: &str, env: &[(&str, &str)]) -> Result<Self> {
        let mut cmd = tb.user(&format!("exec {command}"));
        for (name, value) in env {
            cmd = cmd.env(name, value);
        }
        let mut daemon = cmd.spawn()?;
        let up = wait::until_true("dockerd answers", PATIENCE, || {
            if !daemon.alive()? {
                bail!("dockerd ended");
            }
            Ok(tb.exists("/run/user/1001/docker.sock")
                && tb.user("docker version").run()?.code == 0)
        });
        if let Err(error) = up {
            return Err(error.context(format!("its log:\n{}", tail(&daemon.printed()?))));
        }
        Ok(Self { tb, daemon })
    }

    /// The launcher's process.
    #[must_use]
    pub fn daemon(&self) -> &Running<'b> {
        &self.daemon
    }

    /// What the daemon logged so far.
    ///
    /// # Errors
    /// The capture cannot be read.
    pub fn log(&self) -> Result<String> {
        self.daemon.printed()
    }

    /// Runs `docker ARGS` as the user (a shell line) and gives what it printed.
    ///
    /// # Errors
    /// A non-zero exit status; the message holds the daemon's log, too.
    pub fn run(&self, args: &str) -> Result<String> {
        let out = self.tb.user(&format!("docker {args}")).limit(120).ok();
        out.map_err(|error| match self.log() {
            Ok(log) => error.context(format!("daemon's log:\n{}", tail(&log))),
            Err(other) => other,
        })
    }

    /// What `docker run --rm ARGS` printed, for containers that print something.
    ///
    /// On a busy machine Docker loses the output of a container that ends at once now and then (seen with 28.5; compare
    /// <https://github.com/moby/moby/issues/43121>), so one that ended well without a word is asked again.
    ///
    /// # Errors
    /// As [`run`](Self::run), or it is silent three times.
    pub fn output(&self, args: &str) -> Result<String> {
        for _ in 0..3 {
            let said = self.run(&format!("run --rm {args}"))?;
            if !said.is_empty() {
                return Ok(said);
            }
        }
        bail!("docker run --rm {args}: no output")
    }

    /// Imports the image `bb`.
    ///
    /// # Errors
    /// The import fails.
    pub fn import(&self) -> Result<()> {
        self.tb.user(MAKE_IMAGE).limit(120).ok().map(drop).context("importing an image")
    }

    /// Stops the daemon with SIGTERM, as a service manager does, and expects exit status 0.
    ///
    /// # Errors
    /// It does not end within 30 seconds, or not well.
    pub fn stop(self) -> Result<()> {
        self.daemon.signal("TERM")?;
        let output = self.daemon.wait(PATIENCE)?;
        anyhow::ensure!(output.code == 0, "the daemon did not stop cleanly: {output}");
        Ok(())
    }
}

/// The last lines of a log: enough to see the reason.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
