//! `centroute-edge inspect`.

use std::fmt::Write as _;
use std::io::Write as _;

use centroute::bundle::Bundle;
use centroute_core::Artifact;
use serde_json::{Value, json};

use crate::Fault;
use crate::arguments::InspectOptions;

/// Shows what a bundle holds, which is checked on the way. The embedder need not run here.
pub fn run(options: &InspectOptions) -> Result<bool, Fault> {
    let bundle = Bundle::open(&options.bundle)?;
    let name = options.bundle.display();
    let broken = |error: &dyn std::fmt::Display| Fault::Told(format!("{name}: {error}"));
    let artifact = Artifact::from_bytes(&bundle.router).map_err(|error| broken(&error))?;
    let manifest: Value = serde_json::from_slice(&bundle.manifest_json).map_err(|error| broken(&error))?;
    let metadata: Value = serde_json::from_str(&artifact.metadata_json).map_err(|error| broken(&error))?;
    let text = if options.json {
        format!("{}\n", json!({"bundle": options.bundle.to_string_lossy(), "manifest": manifest, "router": metadata}))
    } else {
        describe(&options.bundle.to_string_lossy(), &bundle, &artifact, &manifest)
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(true)
}

fn describe(name: &str, bundle: &Bundle, artifact: &Artifact, manifest: &Value) -> String {
    let metadata = &artifact.metadata;
    let bytes: u64 = bundle.manifest.files.values().map(|entry| entry.bytes).sum();
    let mut text = format!("{name} ({bytes} bytes, written by centroute {})\n", bundle.manifest.centroute_version);
    let threshold = metadata.ood_threshold;
    let facts = [
        ("embedder", format!("{}, dim {}", metadata.embedder.name, metadata.embedder.dim)),
        (
            "clusters",
            format!(
                "{} in {}, top-p {}, beta {}",
                artifact.n_clusters(),
                bundle.manifest.precision,
                metadata.top_p,
                metadata.beta
            ),
        ),
        ("out of distribution", threshold.map_or("never".into(), |value| format!("below similarity {value:.3}"))),
        ("router sha256", metadata.sha256.clone()),
        (
            "agreement",
            manifest.get("agreement").filter(|value| !value.is_null()).map_or("not measured".into(), Value::to_string),
        ),
    ];
    for (name, fact) in facts {
        let _ = writeln!(text, "  {name:20} {fact}");
    }
    let _ = writeln!(text, "\n  {:40} {:>12} {:>14}", "model", "mean quality", "mean cost USD");
    for (model, (quality, cost)) in metadata.models.iter().zip(artifact.quality.prior.iter().zip(&artifact.cost.prior))
    {
        let cost = if cost.is_nan() { "unknown".into() } else { format!("{cost:.3e}") };
        let _ = writeln!(text, "  {:40} {quality:>12.3} {cost:>14}", model.name);
    }
    text
}
