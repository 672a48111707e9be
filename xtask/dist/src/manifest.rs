//! The one table of what is installed: file, mode, source. Packages, `cargo xtask install` and the tests follow it.
//! The file is long because the table has a row for each program, man page and page of the documentation.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xtask_support::cargo;

use crate::programs::Programs;

/// Where a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A program.
    Program(&'static str),
    /// A symbolic link with this text.
    Link(&'static str),
    /// A file of the repository.
    File(&'static str),
    /// A file that [`super::docs`] or [`super::licences`] makes.
    Made(&'static str),
}

/// A row: where it goes below the prefix, where it comes from. A name that ends in `.gz` is compressed.
pub(crate) type Row<'a> = (&'a str, Source);

use self::Source::{File, Link, Made, Program};

/// A file of the repository's documentation: in the same place as there, seen from the others, so that links between
/// pages work.
macro_rules! page {
    ($file:literal) => {
        (concat!("share/doc/docker-ce-rootless-extras/", $file), File($file))
    };
}

/// Everything below the prefix. Programs have mode 0755, all else 0644.
pub(crate) const ROWS: &[Row<'static>] = &[
    ("bin/rootlesskit", Program("rootlesskit")),
    ("bin/rootlessctl", Program("rootlessctl")),
    ("bin/rootlesskit-docker-proxy", Program("rootlesskit-docker-proxy")),
    ("bin/dockerd-rootless", Program("dockerd-rootless")),
    ("bin/dockerd-rootless.sh", Link("dockerd-rootless")),
    ("bin/dockerd-rootless-setuptool", Program("dockerd-rootless-setuptool")),
    ("bin/dockerd-rootless-setuptool.sh", Link("dockerd-rootless-setuptool")),
    ("share/man/man1/rootlesskit.1.gz", Made("rootlesskit.1")),
    ("share/man/man1/rootlessctl.1.gz", Made("rootlessctl.1")),
    ("share/man/man1/rootlessctl-list-ports.1.gz", Made("rootlessctl-list-ports.1")),
    ("share/man/man1/rootlessctl-add-ports.1.gz", Made("rootlessctl-add-ports.1")),
    ("share/man/man1/rootlessctl-remove-ports.1.gz", Made("rootlessctl-remove-ports.1")),
    ("share/man/man1/rootlessctl-info.1.gz", Made("rootlessctl-info.1")),
    ("share/man/man1/rootlessctl-stats.1.gz", Made("rootlessctl-stats.1")),
    ("share/man/man1/rootlessctl-capture.1.gz", Made("rootlessctl-capture.1")),
    ("share/man/man1/rootlessctl-flows.1.gz", Made("rootlessctl-flows.1")),
    ("share/man/man1/rootlessctl-policy.1.gz", Made("rootlessctl-policy.1")),
    ("share/man/man1/rootlessctl-policy-check.1.gz", Made("rootlessctl-policy-check.1")),
    ("share/man/man1/rootlessctl-policy-show.1.gz", Made("rootlessctl-policy-show.1")),
    ("share/man/man1/rootlessctl-policy-test.1.gz", Made("rootlessctl-policy-test.1")),
    (
        "share/man/man1/rootlesskit-docker-proxy.1.gz",
        File("packaging/man/rootlesskit-docker-proxy.1"),
    ),
    ("share/man/man1/dockerd-rootless.1.gz", File("packaging/man/dockerd-rootless.1")),
    ("share/man/man1/dockerd-rootless.sh.1.gz", Link("dockerd-rootless.1.gz")),
    (
        "share/man/man1/dockerd-rootless-setuptool.1.gz",
        File("packaging/man/dockerd-rootless-setuptool.1"),
    ),
    ("share/man/man1/dockerd-rootless-setuptool.sh.1.gz", Link("dockerd-rootless-setuptool.1.gz")),
    ("share/bash-completion/completions/rootlesskit", Made("rootlesskit.bash")),
    ("share/bash-completion/completions/rootlessctl", Made("rootlessctl.bash")),
    (
        "share/bash-completion/completions/dockerd-rootless-setuptool",
        Made("dockerd-rootless-setuptool.bash"),
    ),
    (
        "share/bash-completion/completions/dockerd-rootless-setuptool.sh",
        Made("dockerd-rootless-setuptool.sh.bash"),
    ),
    ("share/zsh/site-functions/_rootlesskit", Made("_rootlesskit")),
    ("share/zsh/site-functions/_rootlessctl", Made("_rootlessctl")),
    ("share/zsh/site-functions/_dockerd-rootless-setuptool", Made("_dockerd-rootless-setuptool")),
    (
        "share/zsh/site-functions/_dockerd-rootless-setuptool.sh",
        Made("_dockerd-rootless-setuptool.sh"),
    ),
    ("share/fish/vendor_completions.d/rootlesskit.fish", Made("rootlesskit.fish")),
    ("share/fish/vendor_completions.d/rootlessctl.fish", Made("rootlessctl.fish")),
    (
        "share/fish/vendor_completions.d/dockerd-rootless-setuptool.fish",
        Made("dockerd-rootless-setuptool.fish"),
    ),
    (
        "share/fish/vendor_completions.d/dockerd-rootless-setuptool.sh.fish",
        Made("dockerd-rootless-setuptool.sh.fish"),
    ),
    page!("README.md"),
    page!("LICENSE"),
    page!("CHANGELOG.md"),
    page!("CONTRIBUTING.md"),
    page!("SECURITY.md"),
    page!("crates/api/openapi.yaml"),
    page!("docs/ARCHITECTURE.md"),
    page!("docs/README.md"),
    page!("docs/benchmarks.md"),
    page!("docs/compatibility.md"),
    page!("docs/dev/situations.md"),
    page!("docs/egress-policy.md"),
    page!("docs/images/connections.svg"),
    page!("docs/images/cpu.svg"),
    page!("docs/images/gateway.svg"),
    page!("docs/images/memory.svg"),
    page!("docs/images/publish.svg"),
    page!("docs/images/requests.svg"),
    page!("docs/images/soak.svg"),
    page!("docs/images/speed.svg"),
    page!("docs/images/throughput-outbound.svg"),
    page!("docs/images/throughput-published.svg"),
    page!("docs/install.md"),
    page!("docs/kernels.md"),
    page!("docs/limitations.md"),
    page!("docs/network.md"),
    page!("docs/reference/check-codes.md"),
    page!("docs/reference/drivers.md"),
    page!("docs/reference/source-addresses.md"),
    page!("docs/security.md"),
    page!("docs/several-hosts.md"),
    page!("docs/troubleshooting.md"),
    page!("docs/uninstall.md"),
    page!("packaging/README.md"),
    page!("tests/README.md"),
    page!("xtask/bench/README.md"),
    // Where the pages look for them.
    ("share/doc/docker-ce-rootless-extras/packaging/examples", Link("../examples")),
    ("share/doc/docker-ce-rootless-extras/THIRD-PARTY.gz", Made("THIRD-PARTY")),
    (
        "share/doc/docker-ce-rootless-extras/examples/apparmor-home-bin",
        File("packaging/examples/apparmor-home-bin"),
    ),
    (
        "share/doc/docker-ce-rootless-extras/examples/docker.service",
        File("packaging/examples/docker.service"),
    ),
    (
        "share/doc/docker-ce-rootless-extras/examples/docker.socket",
        File("packaging/examples/docker.socket"),
    ),
    (
        "share/doc/docker-ce-rootless-extras/examples/modules-load.conf",
        File("packaging/examples/modules-load.conf"),
    ),
    (
        "share/doc/docker-ce-rootless-extras/examples/sysctl.conf",
        File("packaging/examples/sysctl.conf"),
    ),
];

/// Where the rows' files are found.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) programs: Programs,
    /// Folder of the [`Source::Made`] files.
    pub(crate) made: PathBuf,
}

/// Puts `rows` below `root`, an existing folder, replacing files that are there.
///
/// # Errors
/// A source is missing, or the tree cannot be written.
pub(crate) fn stage(rows: &[Row<'_>], sources: &Sources, root: &Path) -> Result<()> {
    for &(name, from) in rows {
        let to = root.join(name);
        make_folders(root, &to)?;
        if fs::symlink_metadata(&to).is_ok() {
            fs::remove_file(&to).with_context(|| format!("replacing {}", to.display()))?;
        }
        let (source, mode) = match from {
            Link(text) => {
                symlink(text, &to).with_context(|| format!("linking {}", to.display()))?;
                continue;
            }
            Program(program) => (sources.programs.get(program).context(program)?.to_owned(), 0o755),
            File(file) => (cargo::workspace()?.join(file), 0o644),
            Made(file) => (sources.made.join(file), 0o644),
        };
        if to.extension().is_some_and(|extension| extension == "gz") {
            compress(&source, &to)?;
        } else {
            fs::copy(&source, &to)
                .with_context(|| format!("copying {} to {}", source.display(), to.display()))?;
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Makes the folders between `root` and `file` with mode 0755, whatever the umask.
fn make_folders(root: &Path, file: &Path) -> Result<()> {
    let parent = file.parent().context("a row without a folder")?;
    let missing: Vec<&Path> =
        parent.ancestors().take_while(|dir| *dir != root && !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Compresses without name and date, so that the result depends on the contents only.
pub(crate) fn compress(source: &Path, to: &Path) -> Result<()> {
    let output =
        Command::new("gzip").args(["-9nc", "--"]).arg(source).output().context("running gzip")?;
    ensure!(
        output.status.success(),
        "gzip {}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(to, output.stdout).with_context(|| format!("writing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `path` without `..`.
    fn resolved(path: &Path) -> String {
        let mut parts = Vec::new();
        for part in path.to_str().unwrap().split('/') {
            match part {
                ".." => assert!(parts.pop().is_some(), "{}", path.display()),
                "." | "" => {}
                other => parts.push(other),
            }
        }
        parts.join("/")
    }

    /// What `target` means in the folder of the row `name`.
    fn beside(name: &str, target: &str) -> String {
        resolved(&Path::new(name).parent().unwrap().join(target))
    }

    /// Whether a file or folder of this name is installed. `rows` are all names and what the links among them say.
    fn is_installed(rows: &[Row<'_>], name: &str) -> bool {
        rows.iter().any(|(row, from)| match from {
            Link(to) if *row == name => is_installed(rows, &beside(row, to)),
            _ => {
                row.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        })
    }

    #[test]
    fn every_link_leads_to_a_row() {
        let names: BTreeSet<_> = ROWS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), ROWS.len(), "a name is there twice");
        for (name, from) in ROWS {
            assert!(!matches!(from, Link(_)) || is_installed(ROWS, name), "{name}");
        }
    }

    /// The targets of links and images in Markdown, and of those in HTML. Code blocks and code spans have none.
    fn targets(text: &str) -> Vec<&str> {
        let mut targets = Vec::new();
        let mut fenced = false;
        for line in text.lines() {
            fenced ^= line.trim_start().starts_with("```");
            let prose = line.split('`').step_by(2).filter(|_| !fenced);
            // The text of a link may hold a code span, so its target may be in the next part.
            for part in prose {
                for begin in ["](", "src=\"", "href=\""] {
                    let found = part.split(begin).skip(1);
                    targets.extend(found.filter_map(|rest| rest.split([')', '"', ' ']).next()));
                }
            }
            if !fenced && line.starts_with('[') {
                let definition = line.split_once("]: ");
                targets.extend(definition.and_then(|(_, rest)| rest.split(' ').next()));
            }
        }
        targets
    }

    /// The relative links of the pages among `rows`, as (page, target), that lead to nothing installed.
    fn dead_links<'a>(
        rows: &[Row<'a>],
        read: impl Fn(&str) -> String,
    ) -> (usize, Vec<(&'a str, String)>) {
        let mut dead = Vec::new();
        let mut count = 0;
        for (name, from) in rows {
            let File(file) = from else { continue };
            if !file.ends_with(".md") {
                continue;
            }
            let text = read(file);
            for target in targets(&text) {
                let (path, _) = target.split_once('#').unwrap_or((target, ""));
                if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                count += 1;
                if !is_installed(rows, &beside(name, path)) {
                    dead.push((*name, target.to_owned()));
                }
            }
        }
        (count, dead)
    }

    #[test]
    fn every_relative_link_of_an_installed_page_leads_to_an_installed_file() {
        let root = cargo::workspace().unwrap();
        let (count, dead) = dead_links(ROWS, |file| fs::read_to_string(root.join(file)).unwrap());
        assert!(dead.is_empty(), "install these, too: {dead:#?}");
        assert!(count > 50, "only {count} links were found");
    }

    #[test]
    fn debhelper_leaves_the_names_of_linked_files_alone() {
        let rules = cargo::workspace().unwrap().join("packaging/templates/debian/rules");
        let rules = fs::read_to_string(rules).unwrap();
        let line = rules.lines().find(|line| line.starts_with("\tdh_compress ")).unwrap();
        let kept: Vec<_> = line.split(' ').filter_map(|word| word.strip_prefix("-X")).collect();
        let is_example = |name: &str| name.contains("/examples/");
        let mut pages = ROWS.iter().filter_map(|(name, from)| match from {
            File(_) if name.starts_with("share/doc/") && !is_example(name) => Some(name),
            _ => None,
        });
        assert!(pages.all(|name| kept.iter().any(|kept| name.ends_with(kept))), "{line}");
    }

    #[test]
    fn a_link_to_what_is_not_installed_is_found() {
        let rows = [
            ("doc/README.md", File("README.md")),
            ("doc/docs/a.md", File("docs/a.md")),
            ("doc/examples/x", File("examples/x")),
            ("doc/docs/more", Link("../examples")),
        ];
        let page = "[a](docs/a.md#x) [`code` b](docs/b.md) ![c](c.svg \"title\") `[no](no.md)`\n\
                    ```\n[no](no.md)\n```\n<img src=\"d.svg\">\n[e]: e.md\n[u](https://x/y.md) [s](#here)";
        let (count, dead) = dead_links(&rows, |file| match file {
            "README.md" => page.to_owned(),
            _ => "[up](../README.md) [folder](../examples) [link](more) [away](../gone)".to_owned(),
        });
        let dead: Vec<_> = dead.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(dead, ["docs/b.md", "c.svg", "d.svg", "e.md", "../gone"]);
        assert_eq!(count, 9);
    }

    #[test]
    fn every_program_has_a_man_page() {
        let names: BTreeSet<_> = ROWS.iter().map(|(name, _)| *name).collect();
        for program in names.iter().filter_map(|name| name.strip_prefix("bin/")) {
            assert!(names.contains(format!("share/man/man1/{program}.1.gz").as_str()), "{program}");
        }
    }

    #[test]
    fn every_page_of_the_documentation_is_installed() {
        let docs = cargo::workspace().unwrap().join("docs");
        for folder in ["", "reference"] {
            for entry in fs::read_dir(docs.join(folder)).unwrap() {
                let name = Path::new("docs").join(folder).join(entry.unwrap().file_name());
                let name = name.to_str().unwrap();
                if name.ends_with(".md") {
                    let mut rows = ROWS.iter().filter_map(|(to, _)| to.split_once("-extras/"));
                    assert!(rows.any(|(_, to)| to == name), "{name}");
                }
            }
        }
    }

    #[test]
    fn files_get_their_modes_and_compression() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        fs::create_dir(&made).unwrap();
        fs::write(made.join("page"), "text").unwrap();
        let sources =
            Sources { programs: [("rootlesskit", made.join("page"))].into(), made: made.clone() };
        let rows = [
            ("bin/p", Program("rootlesskit")),
            ("bin/q", Link("p")),
            ("share/a.gz", Made("page")),
            ("share/a", Made("page")),
        ];
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        // The second time everything is replaced.
        for _ in 0..2 {
            stage(&rows, &sources, &root).unwrap();
        }
        let mode =
            |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("bin"), mode("bin/p"), mode("share/a.gz")), (0o755, 0o755, 0o644));
        assert_eq!(fs::read_link(root.join("bin/q")).unwrap(), Path::new("p"));
        assert_eq!(fs::read(root.join("share/a.gz")).unwrap()[..2], [0x1f, 0x8b]);
        assert_eq!(fs::read(root.join("share/a")).unwrap(), b"text");
        let error = stage(&[("x", Made("none"))], &sources, &root).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
