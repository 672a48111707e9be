//! From text to what it says, with the line of everything that is wrong.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::values::{self, Problem};
use super::{File, FileError, Keys, Who, Written, hints};
use crate::policy::{Action, Mode, Protocol};

/// How many rules a file may have.
const MAX_RULES: usize = 1000;
/// How many entries a list may have.
const MAX_LIST: usize = 100;
/// How many entries all lists may have together.
const MAX_ENTRIES: usize = 10_000;

const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("dry-run", Mode::DryRun)];

/// A value, and where it is.
type Node<'t> = Spanned<DeValue<'t>>;

pub(super) fn file(text: &str) -> Result<File, FileError> {
    let reader = Reader { text, entries: Cell::new(0) };
    if text.len() > File::MAX_LENGTH {
        let problem = format!("the file has {} bytes, more than 1 MiB", text.len());
        return Err(reader.error(&(0..0), Problem::new(problem, "write fewer rules")));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let problem = error.message().split(char::is_control).collect::<Vec<_>>().join(" ");
        let hint = "write TOML: `key = value`, text in double quotes, [lists, in, brackets], and [[rule]] before each rule";
        let span = error.span().unwrap_or_default();
        reader.error(&span, hints::syntax(text, &span, Problem::new(problem, hint)))
    })?;
    let table = Table { reader: &reader, span: document.span(), table: document.get_ref() };
    // What a script truncates before it writes it would open everything.
    if document.get_ref().is_empty() {
        let hint = "write `default = \"allow\"` if containers may reach everything";
        return Err(reader.error(&(0..0), Problem::new("the file is empty", hint)));
    }
    table.knows(&["mode", "default", "metadata", "rule"])?;
    let action = |key| Ok(table.choice(key, &Action::WORDS)?.unwrap_or_default());
    Ok(File {
        mode: table.choice("mode", MODES)?.unwrap_or_default(),
        default: action("default")?,
        metadata: action("metadata")?,
        rules: rules(&table, action("metadata")?)?,
    })
}

fn rules(table: &Table<'_, '_>, metadata: Action) -> Result<Vec<Written>, FileError> {
    let Some(node) = table.get("rule") else { return Ok(Vec::new()) };
    let reader = table.reader;
    let Some(list) = node.get_ref().as_array() else {
        let problem =
            Problem::new("`rule` is not a list of rules", "write [[rule]] before each rule");
        return Err(reader.error(&node.span(), problem));
    };
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut rules = Vec::new();
    for node in list.iter() {
        if rules.len() == MAX_RULES {
            let problem = Problem::new("the file has more than 1000 rules", "write fewer rules");
            return Err(reader.error(&node.span(), problem));
        }
        let table = reader.table("rule", node)?;
        let rule = rule(&table)?;
        let span = table.get("name").map_or(node.span(), Spanned::span);
        let name = values::quoted(&rule.name);
        if metadata == Action::Deny && rule.name == "metadata" {
            let problem = format!("{name} is the name of the rule that `metadata = \"deny\"` adds");
            let problem = Problem::new(problem, "give this rule another name");
            return Err(reader.error(&span, problem));
        }
        if let Some(line) = names.insert(rule.name.clone(), rule.line) {
            let problem = format!("{name} is already the name of the rule in line {line}");
            return Err(reader.error(&span, Problem::new(problem, "give each rule a unique name")));
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn rule(table: &Table<'_, '_>) -> Result<Written, FileError> {
    table.knows(&["name", "action", "from", "to", "protocol", "ports"])?;
    let reader = table.reader;
    let missing = |key, hint: &str| {
        reader.error(&table.span, Problem::new(format!("this rule has no `{key}`"), hint))
    };
    let named = table.get("name");
    let name = named.map(|node| reader.value("name", node, values::rule)).transpose()?;
    let action = table.choice("action", &Action::WORDS)?;
    let from = table.get("from").map(|node| from(&reader.table("from", node)?)).transpose()?;
    let protocols = table.list("protocol", |word| values::choice(word, &Protocol::WORDS))?;
    let rule = Written {
        name: name.ok_or_else(|| missing("name", "add a line such as `name = \"registry\"`"))?,
        line: named.map_or(0, |node| reader.line(&node.span())),
        action: action
            .ok_or_else(|| missing("action", "add `action = \"allow\"` or `action = \"deny\"`"))?,
        from,
        to: table.list("to", values::target)?,
        protocols,
        ports: table.list("ports", values::ports)?,
    };
    if let Some(node) = table.get("ports")
        && !rule.protocols.is_empty()
        && rule.protocols.iter().all(|protocol| *protocol == Protocol::Icmp)
    {
        let hint = "remove `ports`, or add \"tcp\" or \"udp\" to `protocol`";
        let problem = Problem::new("`ports` with the protocol \"icmp\" matches nothing", hint);
        return Err(reader.error(&node.span(), problem));
    }
    Ok(rule)
}

fn from(table: &Table<'_, '_>) -> Result<Who, FileError> {
    table.knows(&["container", "label", "network", "address", "daemon"])?;
    let error = |span: &Range<usize>, problem: &str, hint: &str| {
        Err(table.reader.error(span, Problem::new(problem, hint)))
    };
    if let Some(node) = table.get("daemon") {
        if node.get_ref().as_bool() != Some(true) {
            let hint = "write `daemon = true`, or remove the key";
            return error(&node.span(), "`daemon` must be true", hint);
        }
        if table.table.len() > 1 {
            let hint = "write one rule for the daemon and another one for containers";
            return error(&node.span(), "`daemon = true` cannot be combined with other keys", hint);
        }
        return Ok(Who::Daemon);
    }
    if table.table.is_empty() {
        let hint = "remove `from` to match all senders";
        return error(&table.span, "`from` is empty", hint);
    }
    Ok(Who::Containers(Keys {
        containers: table.list("container", values::container)?,
        labels: table.list("label", values::label)?,
        networks: table.list("network", values::docker_network)?,
        addresses: table.list("address", values::network)?,
    }))
}

/// Knows the lines, and counts the entries of lists.
struct Reader<'r> {
    text: &'r str,
    entries: Cell<usize>,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, span: &Range<usize>, Problem { problem, hint }: Problem) -> FileError {
        FileError { line: self.line(span), problem, hint }
    }

    fn wrong_type(&self, key: &str, node: &Node<'_>, hint: &str) -> FileError {
        let problem = format!("`{key}` cannot be of type {}", node.get_ref().type_str());
        self.error(&node.span(), Problem::new(problem, hint))
    }

    fn table<'r, 't>(&'r self, key: &str, node: &'r Node<'t>) -> Result<Table<'r, 't>, FileError> {
        let hint = || hints::from(node.get_ref().as_str().filter(|_| key == "from"));
        let table = node.get_ref().as_table();
        let table = table.ok_or_else(|| self.wrong_type(key, node, hint()))?;
        Ok(Table { reader: self, span: node.span(), table })
    }

    /// A text that stands for something. A number is one as well where `ports` are.
    fn value<T>(
        &self,
        key: &str,
        node: &Node<'_>,
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<T, FileError> {
        let read = match node.get_ref() {
            DeValue::String(text) => read(text).map_err(|problem| hints::value(key, text, problem)),
            DeValue::Integer(number) if key == "ports" && number.radix() == 10 => {
                read(number.as_str())
            }
            _ => return Err(self.wrong_type(key, node, "write text in double quotes")),
        };
        read.map_err(|problem| self.error(&node.span(), problem))
    }

    /// Counts the entries of a list.
    fn count(&self, node: &Node<'_>, entries: usize) -> Result<(), FileError> {
        self.entries.set(self.entries.get() + entries);
        let problem = if entries > MAX_LIST {
            Problem::new(
                format!("this list has {entries} entries, more than {MAX_LIST}"),
                "write two rules",
            )
        } else if self.entries.get() > MAX_ENTRIES {
            Problem::new(
                format!(
                    "with this list, the file has more than {MAX_ENTRIES} entries in its lists"
                ),
                "write networks instead of addresses, or patterns instead of names",
            )
        } else {
            return Ok(());
        };
        Err(self.error(&node.span(), problem))
    }
}

/// A table, and where it begins.
struct Table<'r, 't> {
    reader: &'r Reader<'r>,
    span: Range<usize>,
    table: &'r DeTable<'t>,
}

impl<'r, 't> Table<'r, 't> {
    /// Refuses other keys.
    fn knows(&self, known: &[&str]) -> Result<(), FileError> {
        let mut unknown: Vec<_> =
            self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).collect();
        unknown.sort_by_key(|key| key.span().start);
        let Some(key) = unknown.first() else { return Ok(()) };
        let meant = || values::meant(key.get_ref(), known.iter().copied());
        let meant = || match meant()? {
            "rule" => Some("write [[rule]]".to_owned()),
            meant => Some(format!("did you mean `{meant}`?")),
        };
        let all = || format!("valid keys are {}", known.join(", "));
        let hint = hints::place(key.get_ref()).or_else(meant).unwrap_or_else(all);
        let problem = format!("{} is not a valid key here", values::quoted(key.get_ref()));
        Err(self.reader.error(&key.span(), Problem::new(problem, hint)))
    }

    fn get(&self, key: &str) -> Option<&'r Node<'t>> {
        self.table.get(key)
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, FileError> {
        let Some(node) = self.get(key) else { return Ok(None) };
        if node.get_ref().as_str().is_none() {
            return Err(self.reader.wrong_type(key, node, &values::one_of(choices)));
        }
        self.reader.value(key, node, |word| values::choice(word, choices)).map(Some)
    }

    /// One value, or a list of them. Nothing, if the key is not there.
    fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, FileError> {
        let Some(node) = self.get(key) else { return Ok(Vec::new()) };
        let reader = self.reader;
        let Some(list) = node.get_ref().as_array() else {
            reader.count(node, 1)?;
            return Ok(vec![reader.value(key, node, read)?]);
        };
        if list.is_empty() {
            let hint = format!("remove `{key}`, or add an entry");
            let problem = Problem::new(format!("`{key}` is an empty list"), hint);
            return Err(reader.error(&node.span(), problem));
        }
        reader.count(node, list.len())?;
        list.iter().map(|node| reader.value(key, node, &read)).collect()
    }
}
