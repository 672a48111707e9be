//! The bill of materials: what the programs consist of, for vulnerability scanners (CycloneDX 1.5,
//! <https://cyclonedx.org/docs/1.5/json/>). It has no serial number and no time, so that it is reproducible.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::crates::Crate;
use crate::programs::PROGRAMS;
use crate::release::{PACKAGE, Release};

/// Writes it to `path`.
///
/// # Errors
/// A crate names no licence.
pub(crate) fn make(release: &Release, crates: &[Crate], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(&document(release, crates)?)?;
    fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

fn document(release: &Release, crates: &[Crate]) -> Result<Value> {
    let programs: Vec<Value> = PROGRAMS
        .iter()
        .map(|program| json!({ "type": "application", "name": program.name, "version": release.version }))
        .collect();
    let components: Vec<Value> = crates.iter().map(component).collect::<Result<_>>()?;
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": PACKAGE,
                "name": PACKAGE,
                "version": release.version,
                "licenses": [{ "license": { "id": "Apache-2.0" } }],
                "components": programs,
            },
        },
        "components": components,
    }))
}

fn component(one: &Crate) -> Result<Value> {
    let url = format!("pkg:cargo/{}@{}", one.name, one.version);
    // A crate with a licence of its own has a file in place of an expression.
    let licence = match &one.license {
        // Crates from before SPDX expressions separate with a slash what may be chosen from.
        Some(expression) => {
            let choices: Vec<&str> = expression.split('/').map(str::trim).collect();
            json!({ "expression": choices.join(" OR ") })
        }
        None => json!({ "license": { "name": one.licence()? } }),
    };
    let mut component = json!({ "type": "library", "bom-ref": url, "name": one.name,
        "version": one.version, "purl": url, "licenses": [licence] });
    if let Some(repository) = &one.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_have_package_urls_and_licence_expressions() {
        let one = Crate {
            name: "nix".to_owned(),
            version: "0.31.0".to_owned(),
            license: Some("MIT / Apache-2.0".to_owned()),
            repository: Some("https://example.org/nix".to_owned()),
            ..Crate::default()
        };
        let value = component(&one).unwrap();
        assert_eq!(value["purl"], "pkg:cargo/nix@0.31.0");
        assert_eq!(value["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(value["externalReferences"][0]["url"], "https://example.org/nix");
        assert!(component(&Crate { license: None, ..one }).is_err());
    }
}
