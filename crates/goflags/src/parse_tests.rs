//! Tests of the walk, against the habits of Go's `flag` package and `urfave/cli` v2.

use std::os::unix::ffi::OsStringExt as _;

use clap::value_parser;
use proptest::prelude::*;

use super::*;

fn command() -> Command {
    let text = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
    Command::new("tool")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(text("net"))
        .arg(text("ifname"))
        .arg(text("mtu").value_parser(value_parser!(i64)))
        .arg(text("copy-up").action(ArgAction::Append))
        .arg(Arg::new("publish").long("publish").short('p').action(ArgAction::Append))
        .arg(Arg::new("debug").long("debug").action(ArgAction::SetTrue))
        .arg(text("transparent").value_parser(value_parser!(bool)))
        .arg(Arg::new("fast").long("fast").action(ArgAction::SetFalse))
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::SetTrue))
        .arg(Arg::new("command").num_args(0..).value_parser(value_parser!(OsString)))
}

fn run(args: &[&str]) -> Result<Normalized, FlagError> {
    normalize(&command(), args.iter().map(OsString::from))
}

/// What clap would be given, as text and without the program's name.
fn strict(args: &[&str]) -> Vec<String> {
    let argv = run(args).unwrap().to_clap_args("tool");
    argv[1..].iter().map(|arg| arg.to_str().unwrap().to_owned()).collect()
}

fn error(args: &[&str]) -> String {
    run(args).unwrap_err().to_string()
}

#[test]
fn one_or_two_dashes_and_both_value_forms_are_the_same() {
    for args in [["-net=none", "-debug"], ["--net=none", "--debug=1"], ["-net=none", "--debug=T"]] {
        assert_eq!(strict(&args), ["--net=none", "--debug"]);
    }
    assert_eq!(strict(&["-net", "none", "--mtu", "1500"]), ["--net=none", "--mtu=1500"]);
}

#[test]
fn a_boolean_never_takes_the_next_word() {
    let parsed = run(&["--debug", "false", "--net=none"]).unwrap();
    assert_eq!(parsed.flags, [("debug".to_owned(), None)]);
    assert_eq!(parsed.rest, ["false", "--net=none"]);
}

#[test]
fn a_valued_flag_takes_the_next_word_whatever_it_is() {
    assert_eq!(strict(&["--net", "--debug"]), ["--net=--debug"]);
    assert_eq!(strict(&["--net", "--", "ls"]), ["--net=--", "--", "ls"]);
}

#[test]
fn stops_at_the_first_word_that_is_no_flag() {
    assert_eq!(
        strict(&["--debug", "ls", "-l", "--net=x"]),
        ["--debug", "--", "ls", "-l", "--net=x"]
    );
    assert_eq!(strict(&["--", "--debug", "--"]), ["--", "--debug", "--"]);
    assert_eq!(strict(&["-", "--debug"]), ["--", "-", "--debug"]);
    assert_eq!(strict(&["", "--debug"]), ["--", "", "--debug"]);
    assert_eq!(strict(&["help"]), ["--", "help"]);
    assert_eq!(strict(&["--"]), Vec::<String>::new());
}

#[test]
fn the_last_scalar_wins_and_slices_keep_all() {
    assert_eq!(strict(&["--mtu=1", "--net=a", "--mtu=0"]), ["--net=a", "--mtu=0"]);
    assert_eq!(
        strict(&["--copy-up=/etc", "--copy-up", "/run,/x"]),
        ["--copy-up=/etc", "--copy-up=/run,/x"]
    );
    assert_eq!(strict(&["--debug", "--debug=false"]), Vec::<String>::new());
    assert_eq!(strict(&["--debug=0", "--debug"]), ["--debug"]);
}

#[test]
fn booleans_that_start_as_true_can_be_switched_off() {
    assert_eq!(strict(&["--transparent"]), ["--transparent=true"]);
    assert_eq!(strict(&["--transparent=F"]), ["--transparent=false"]);
    assert_eq!(strict(&["--fast=false"]), ["--fast"]);
    assert_eq!(strict(&["--fast"]), Vec::<String>::new());
}

#[test]
fn short_names_work_and_do_not_bundle() {
    assert_eq!(
        strict(&["-p", "80:80/tcp", "--p=81:81/tcp"]),
        ["--publish=80:80/tcp", "--publish=81:81/tcp"]
    );
    assert_eq!(error(&["-ph"]), "flag provided but not defined: -ph");
    assert_eq!(strict(&["-h"]), ["--help"]);
}

#[test]
fn two_names_of_one_flag_do_not_mix() {
    let text = "Cannot use two forms of the same flag: p publish";
    assert_eq!(error(&["-p", "1:1/tcp", "--publish=2:2/tcp"]), text);
    assert_eq!(error(&["--publish=2:2/tcp", "-p", "1:1/tcp"]), text);
    assert_eq!(error(&["--publish=2", "-p=1", "--nope"]), "flag provided but not defined: -nope");
}

#[test]
fn integers_reach_clap_in_decimal() {
    assert_eq!(strict(&["--mtu=0x5dc"]), ["--mtu=1500"]);
    assert_eq!(strict(&["--mtu", "-1"]), ["--mtu=-1"]);
    assert_eq!(error(&["--mtu=x"]), r#"invalid value "x" for flag -mtu: parse error"#);
    assert_eq!(error(&["-mtu", ""]), r#"invalid value "" for flag -mtu: parse error"#);
    assert_eq!(
        error(&["--mtu=9223372036854775808"]),
        r#"invalid value "9223372036854775808" for flag -mtu: value out of range"#
    );
}

#[test]
fn errors_have_the_words_of_go() {
    assert_eq!(error(&["--foo=bar"]), "flag provided but not defined: -foo");
    assert_eq!(error(&["--debug", "--net"]), "flag needs an argument: -net");
    assert_eq!(
        error(&["--debug=maybe"]),
        r#"invalid boolean value "maybe" for -debug: parse error"#
    );
    assert_eq!(error(&["--debug="]), r#"invalid boolean value "" for -debug: parse error"#);
    assert_eq!(error(&["---x"]), "bad flag syntax: ---x");
    assert_eq!(error(&["--=x"]), "bad flag syntax: --=x");
    assert_eq!(error(&["-=x"]), "bad flag syntax: -=x");
}

#[test]
fn help_is_an_error_of_its_own_where_the_command_does_not_define_it() {
    let bare = Command::new("tool");
    assert_eq!(normalize(&bare, ["-h".into()]), Err(FlagError::Help));
    assert_eq!(normalize(&bare, ["--help".into()]), Err(FlagError::Help));
}

#[test]
fn clap_reads_the_strict_form() {
    let argv = run(&[
        "-net",
        "",
        "-mtu",
        "0x10",
        "-debug",
        "-copy-up",
        "a,b",
        "-transparent=0",
        "ls",
        "-l",
        "--",
        "--net=z",
    ])
    .unwrap()
    .to_clap_args("tool");
    let matches = command().try_get_matches_from(argv).unwrap();
    assert_eq!(matches.get_one::<String>("net").unwrap(), "");
    assert_eq!(matches.get_one::<i64>("mtu"), Some(&16));
    assert_eq!(matches.get_one::<bool>("transparent"), Some(&false));
    assert!(matches.get_flag("debug"));
    let rest: Vec<&OsString> = matches.get_many("command").unwrap().collect();
    assert_eq!(rest, ["ls", "-l", "--", "--net=z"]);
}

proptest! {
    #[test]
    fn never_panics_and_keeps_the_rest_verbatim(words: Vec<Vec<u8>>, rest: Vec<Vec<u8>>) {
        let rest: Vec<OsString> = rest.into_iter().map(OsString::from_vec).collect();
        let all = words.into_iter().map(OsString::from_vec).chain(["cmd".into()]).chain(rest.clone());
        if let Ok(parsed) = normalize(&command(), all) {
            prop_assert!(parsed.rest.ends_with(&rest));
        }
    }

    #[test]
    fn whatever_follows_the_first_word_is_the_rest(
        flags in proptest::collection::vec(
            prop_oneof![Just("--debug"), Just("-net=x"), Just("--mtu=0x1"), Just("-p=1"), Just("--fast=f")], 0..6),
        rest in proptest::collection::vec(any::<Vec<u8>>().prop_map(OsString::from_vec), 0..6),
    ) {
        let all = flags.iter().map(OsString::from).chain(["cmd".into()]).chain(rest.clone());
        let parsed = normalize(&command(), all).unwrap();
        prop_assert_eq!(parsed.flags.len(), flags.len());
        prop_assert_eq!(&parsed.rest[0], "cmd");
        prop_assert_eq!(&parsed.rest[1..], &rest[..]);
        // A second pass over the strict form changes nothing.
        let strict = parsed.to_clap_args("tool");
        let again = normalize(&command(), strict[1..].iter().filter(|arg| *arg != "--fast").cloned()).unwrap();
        prop_assert_eq!(&again.rest, &parsed.rest);
    }

    #[test]
    fn plausible_words_never_panic(words in proptest::collection::vec("-{0,3}(net|mtu|debug|p|h|x)?=?[a-z0-9\u{e9}]{0,3}", 0..8)) {
        let _ = normalize(&command(), words.into_iter().map(OsString::from));
    }
}
