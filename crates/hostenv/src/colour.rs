//! Whether what is printed on a terminal may be coloured.

use crate::{Env, vars};

/// Whether the user wants colours on terminals: not if `NO_COLOR` is set to anything but the empty string
/// (<https://no-color.org>), nor on a terminal that has none.
pub fn is_wanted(env: &Env) -> bool {
    env.nonempty(vars::NO_COLOR).is_none() && env.get(vars::TERM).is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_no_color_is_none() {
        for (variables, wanted) in [
            (&[][..], true),
            (&[(vars::NO_COLOR, "")], true),
            (&[(vars::NO_COLOR, "1")], false),
            (&[(vars::NO_COLOR, "0")], false),
            (&[(vars::TERM, "dumb")], false),
            (&[(vars::NO_COLOR, ""), (vars::TERM, "xterm")], true),
        ] {
            assert_eq!(is_wanted(&variables.iter().copied().collect()), wanted, "{variables:?}");
        }
    }
}
