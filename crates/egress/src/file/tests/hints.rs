use super::*;

#[test]
fn hints_are_about_what_was_meant() {
    for (line, hint) in [
        ("default = \"deny\"", "write `default` above the first [[rule]]"),
        ("mode = \"dry-run\"", "write `mode` above the first [[rule]]"),
        ("from = { metadata = \"deny\" }", "write `metadata` above the first [[rule]]"),
        ("container = \"web\"", "write from = { container = … } in a rule"),
        ("label = \"web\"", "write from = { label = … } in a rule"),
        ("network = \"web\"", "write from = { network = … } in a rule"),
        ("address = \"172.17.0.2\"", "write from = { address = … } in a rule"),
        ("daemon = true", "write from = { daemon = true } in a rule"),
        ("ports = \"443,80\"", "write a list: [443, 80]"),
        ("ports = [\"443, 8000-8100,\"]", "write a list: [443, \"8000-8100\"]"),
        ("ports = \"1,2,3,4,5,6,7,8,9\"", "write a list: [1, 2, 3, 4, 5, 6, 7, 8, …]"),
        ("to = \"a.org, 10.0.0.0/8\"", "write a list: [\"a.org\", \"10.0.0.0/8\"]"),
        ("protocol = \"tcp,udp\"", "write a list: [\"tcp\", \"udp\"]"),
        ("from = { container = \"a,b\" }", "write a list: [\"a\", \"b\"]"),
        ("to = \"10.0.0.1:443\"", "write \"10.0.0.1\", and the port as `ports = 443`"),
        ("to = \"10.0.0.0/8:443\"", "write \"10.0.0.0/8\", and the port as `ports = 443`"),
        ("to = \"example.org:443\"", "write \"example.org\", and the port as `ports = 443`"),
        ("to = \"[fd00::1]:443\"", "write \"fd00::1\", and the port as `ports = 443`"),
        ("to = \"https://a.org:443\"", "write only the host name"),
        ("protocol = \"any\"", "remove `protocol` to match all protocols"),
        ("ports = \"*\"", "remove `ports` to match all ports"),
        ("to = \"*\"", "remove `to` to match all destinations"),
        ("from = \"*\"", "remove `from` to match all senders"),
        ("from = \"daemon\"", "write { daemon = true }"),
        ("protocol = \"TCP\"", "write \"tcp\""),
        ("action = \"Deny\"", "write \"deny\""),
        ("action = true", "write \"allow\" or \"deny\""),
        ("action = deny", "write \"deny\" in double quotes"),
        ("action = deny # not \"allow\"", "write \"deny\" in double quotes"),
        ("from = { container = web-1 }", "write \"web-1\" in double quotes"),
        ("protocol = [tcp, \"udp\"]", "write \"tcp\" in double quotes"),
        ("to = \"a.org”", "use a straight quote: \""),
        ("to = \"“a.org”\"", "use a straight quote: \""),
        ("to = ‘a.org’", "use a straight quote: \""),
        ("to\u{a0}= \"a.org\"", "use an ordinary space"),
    ] {
        let text = match line.starts_with("action") {
            true => format!("\n\n[[rule]]\n{line}\nname = \"a\"\n"),
            false => with(line),
        };
        let error = File::parse(&text).expect_err(line);
        assert_eq!((error.line, &*error.hint), (4, hint), "{line}: {error}");
    }
    for (text, problem, hint) in [
        ("metadata = true\n", "type boolean", "write \"allow\" or \"deny\""),
        ("default = \"Deny\"\n", "\"Deny\" is not a valid value", "write \"deny\""),
        ("default = deny\n", "must be quoted", "write \"deny\" in double quotes"),
        ("[[rules]]\n", "\"rules\" is not a valid key", "write [[rule]]"),
        ("[[Rule]]\n", "\"Rule\" is not a valid key", "write [[rule]]"),
        ("default = “deny”\n", "“ is a typographic quote", "use a straight quote: \""),
        ("default = „deny‟\n", "„ is a typographic quote", "use a straight quote: \""),
        ("default = \u{a0}\"deny\"\n", "U+00A0 is a no-break space", "use an ordinary space"),
    ] {
        let error = File::parse(text).expect_err(text);
        assert_eq!((error.line, &*error.hint), (1, hint), "{text}: {error}");
        assert!(error.problem.contains(problem), "{text}: {error}");
    }
    for text in ["mode = 1\nmode = 1\n", "a = 1\na = { b = 1, b = 2 } # “c”\n", "[a]\n[a]\n"] {
        let error = File::parse(text).expect_err(text);
        assert!(error.hint.starts_with("write TOML"), "{text}: {error}");
    }
}
