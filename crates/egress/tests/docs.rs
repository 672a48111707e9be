//! The files that the documentation shows are policies.

use std::fs;
use std::path::Path;

use egress::File;

#[test]
fn every_file_in_the_documentation_is_a_policy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/egress-policy.md");
    let text = fs::read_to_string(page).unwrap();
    let files: Vec<_> = text.split("\n```toml\n").skip(1).collect();
    assert!(files.len() >= 5, "only {} files were found", files.len());
    for file in files {
        let (file, _) = file.split_once("\n```").unwrap();
        if let Err(error) = File::parse(file) {
            panic!("{error}\n{file}");
        }
    }
}
