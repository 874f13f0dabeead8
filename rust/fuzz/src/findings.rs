//! Inputs that failed once, and those that fuzzing starts from, run again.

use std::fs;
use std::path::Path;

/// Runs every finding and seed of a target; none may fail.
pub fn replay(target: &str, run: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let folders = ["findings", "seeds"].map(|kind| fs::read_dir(root.join(kind).join(target)));
    let mut n_inputs = 0;
    for entry in folders.into_iter().flatten().flatten() {
        let path = entry.expect("an entry of the folder").path();
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Shown by a test that fails.
        println!("{}", path.display());
        run(&input);
        n_inputs += 1;
    }
    assert!(n_inputs > 0, "{target} has no inputs");
}
