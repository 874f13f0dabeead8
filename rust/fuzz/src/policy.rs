//! A policy in JSON is refused in one line, or binds to a router and keeps its limits.
//!
//! A byte picks the router, a query follows up to a zero byte, and the rest is the JSON.

use std::sync::OnceLock;

use centroute::request::policy_from_json;
use centroute_core::{Artifact, Isa, PolicySpec, Router, Scratch};

use crate::artifact::check_decision;
use crate::feed::{Feed, check_message, check_refusal};
use crate::made;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let router = &routers()[feed.below(N_ROUTERS)];
    let query: Vec<f32> = made::values(router.centroids().dim(), u64::from(feed.byte()));
    let Ok(json) = std::str::from_utf8(feed.0) else { return };
    let spec = match policy_from_json(json) {
        Ok(spec) => spec,
        Err(error) => return check_refusal(&error),
    };
    let policy = match spec.check().and_then(|()| router.compile(&spec)) {
        Ok(policy) => policy,
        Err(error) => return check_message(&centroute::Error::from(error)),
    };
    check_decision(router, &query, &policy, &mut Scratch::default());
    // A policy that is written down is the same when it is read again.
    let written = serde_json::to_string(&spec).unwrap_or_default();
    assert_eq!(policy_from_json(&written).ok(), Some(spec), "{written}");
}

const N_ROUTERS: usize = 4;

fn routers() -> &'static [Router] {
    static ROUTERS: OnceLock<Vec<Router>> = OnceLock::new();
    ROUTERS.get_or_init(|| {
        let defaults = [
            PolicySpec::default(),
            PolicySpec { alpha: Some(0.5), deny: Some(["a, b".to_owned()].into()), ..PolicySpec::default() },
            PolicySpec { fallback: Some("small".to_owned()), ..PolicySpec::default() },
            PolicySpec {
                max_cost: Some(0.4),
                allow: Some(["small".into(), "large".into()].into()),
                ..PolicySpec::default()
            },
        ];
        defaults
            .iter()
            .flat_map(|default| {
                let mut metadata = made::metadata(4, false);
                metadata["default_policy"] = serde_json::to_value(default).unwrap_or_default();
                let file = made::sealed(made::container(Some(&metadata.to_string()), &made::tensors(5, 3, 4, "F32")));
                Artifact::from_bytes(&file).and_then(|artifact| Router::new(artifact, None, Isa::detect()))
            })
            .collect()
    })
}
