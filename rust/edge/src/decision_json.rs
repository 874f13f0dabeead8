//! A decision as one line of JSON, with the keys of `centroute route --json`.

use serde::Serialize;

use crate::engine::Decision;

/// Appends the decision as JSON without a line break. Unknown numbers are null.
pub fn write(decision: &Decision<'_>, into: &mut Vec<u8>) {
    let ranking = decision.ranking();
    let choice = &decision.choice;
    into.extend_from_slice(b"{\"model\": ");
    value(decision.model(), into);
    into.extend_from_slice(b", \"quality\": ");
    value(&choice.quality, into);
    into.extend_from_slice(b", \"cost_usd\": ");
    value(&choice.cost, into);
    into.extend_from_slice(b", \"quality_se\": ");
    value(&decision.quality_se(), into);
    into.extend_from_slice(b", \"margin\": ");
    value(&choice.margin, into);
    into.extend_from_slice(b", \"resolved\": ");
    value(&decision.resolved(&ranking), into);
    into.extend_from_slice(b", \"similarity\": ");
    value(&choice.similarity, into);
    into.extend_from_slice(b", \"in_distribution\": ");
    value(&choice.in_distribution, into);
    into.extend_from_slice(b", \"clusters\": [");
    for (place, (id, weight)) in decision.clusters.iter().enumerate() {
        into.extend_from_slice(if place == 0 { b"{\"id\": " } else { b", {\"id\": " });
        value(id, into);
        into.extend_from_slice(b", \"weight\": ");
        value(weight, into);
        into.push(b'}');
    }
    into.extend_from_slice(b"], \"ranking\": [");
    for (place, &model) in ranking.iter().enumerate() {
        into.extend_from_slice(if place == 0 { b"" } else { b", " });
        value(decision.model_name(model), into);
    }
    // A process loads its bundle once.
    into.extend_from_slice(b"], \"generation\": 1}");
}

/// Appends `{"error": message}`.
pub fn write_error(message: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(b"{\"error\": ");
    value(message, into);
    into.push(b'}');
}

/// A number, truth value or string; a number that is not finite becomes null.
fn value<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) {
    // Neither memory nor these types can fail.
    let _ = serde_json::to_writer(into, value);
}
