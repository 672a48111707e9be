//! What rootlesskit said when it failed, or works with less.

/// Part of the warning that the gateway relays published ports from inside the namespace.
pub const PORTS_RELAYED: &str = "this kernel lets only the host's root rewrite packets with nftables (Linux 7.3 and later, and some earlier kernels)";

/// Why rootlesskit failed, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// One line.
    pub what: String,
    /// What it proposes, a line each.
    pub hints: Vec<String>,
}

impl Reason {
    /// Looks for the reason in what rootlesskit wrote. Each of its roles reports an error of its own
    /// (`[rootlesskit:child ] error: …`, then its `hint: …` lines): the first one is the cause, the parent's that follows
    /// says only that the child failed. A text of another form is represented by its last line.
    pub fn find(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let error = |line: &str| {
            let (role, what) = line.strip_prefix("[rootlesskit:")?.split_once("] error: ")?;
            (!role.contains(']')).then(|| what.to_owned())
        };
        let Some(what) = lines.by_ref().find_map(error) else {
            let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
            return Self { what: last.unwrap_or_default().to_owned(), hints: Vec::new() };
        };
        let hints = lines.take_while(|line| !line.starts_with("[rootlesskit:"));
        let hints = hints.filter_map(|line| line.strip_prefix("hint: ").map(str::to_owned));
        Self { what, hints: hints.collect() }
    }
}

/// How rootlesskit proposes other drivers, at the end of a hint.
const OTHERS: &str = "use --net=";

impl Reason {
    /// The hints without the drivers that rootlesskit proposes instead: its caller chooses the driver, and may just have
    /// tried one of these in vain.
    pub fn remedies(&self) -> impl Iterator<Item = &str> {
        let remedies = self.hints.iter().map(|hint| {
            let Some((remedy, _)) = hint.split_once(OTHERS) else { return hint.as_str() };
            remedy.trim_end().trim_end_matches("or").trim_end_matches([',', ';', ' '])
        });
        remedies.filter(|remedy| !remedy.is_empty())
    }

    /// Whether it proposes other drivers.
    pub fn proposes_others(&self) -> bool {
        self.hints.iter().any(|hint| hint.contains(OTHERS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_error_is_the_reason() {
        let text = "time=\"2026-01-01T00:00:00Z\" level=warning msg=\"[rootlesskit:parent] x\"\n\
                    [rootlesskit:child ] error: no tproxy: No such file or directory (os error 2)\n\
                    hint: load nft_tproxy\nhint: or use --net=pasta\n\
                    [rootlesskit:parent] error: child exited: exit status 1\nhint: not this\n";
        let reason = Reason::find(text);
        assert_eq!(reason.what, "no tproxy: No such file or directory (os error 2)");
        assert_eq!(reason.hints, ["load nft_tproxy", "or use --net=pasta"]);
    }

    #[test]
    fn remedies_are_hints_without_other_drivers() {
        for (hint, remedies, others) in [
            ("load nft_tproxy", &["load nft_tproxy"][..], false),
            ("load veth, or use --net=pasta or --net=slirp4netns", &["load veth"], true),
            ("use --net=pasta or --net=slirp4netns", &[], true),
            ("or use --net=pasta", &[], true),
        ] {
            let reason = Reason { what: String::new(), hints: vec![hint.to_owned()] };
            assert!(reason.remedies().eq(remedies.iter().copied()), "{hint}");
            assert_eq!(reason.proposes_others(), others, "{hint}");
        }
    }

    #[test]
    fn other_words_are_quoted_by_their_last_line() {
        for (text, what) in [
            ("", ""),
            ("a\nflag provided but not defined: -net\n\n", "flag provided but not defined: -net"),
            ("msg=\"[rootlesskit:parent] error: x\"", "msg=\"[rootlesskit:parent] error: x\""),
        ] {
            assert_eq!(Reason::find(text), Reason { what: what.to_owned(), hints: Vec::new() });
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_a_reason_is_a_line(
            text in "([a-z:] ?|\\[rootlesskit:|\\] error: |\nhint: |\n){0,12}", any in any::<String>(),
        ) {
            for text in [text, any] {
                let reason = Reason::find(&text);
                prop_assert!(!reason.what.contains('\n'));
                prop_assert!(reason.hints.iter().all(|hint| text.contains(hint.as_str())));
            }
        }
    }
}
