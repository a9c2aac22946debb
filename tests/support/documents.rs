//! The house rules for documents.

use std::fs;
use std::path::Path;

use super::hold;

/// A stranger reads the front pages first: they are short, and every link of a document leads somewhere.
#[test]
fn documents_are_short_and_their_links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for (name, most) in [("README.md", 150), ("ARCHITECTURE.md", 180)] {
        let lines = fs::read_to_string(root.join(name)).expect("it is there").lines().count();
        if lines > most {
            broken.push(format!("{name}: {lines} lines, at most {most}"));
        }
    }
    let docs = fs::read_dir(root.join("docs")).expect("it is there");
    let docs = docs.map(|entry| entry.expect("it can be read").path());
    let roots = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "RELEASING.md"];
    let pages = docs.chain(roots.map(|name| root.join(name)));
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&page).expect("it is text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().expect("a split has a first part");
            let there = page.parent().expect("it is in a folder").join(path).exists();
            if !link.contains("://") && !there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    hold("documents are short and linked", broken);
}
