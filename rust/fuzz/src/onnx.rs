//! An ONNX file is refused in one line, is another graph, or gives a table whose rows have norm one.
//!
//! Odd first byte: a sound graph with tensors and names that the rest spoils; even: the rest is the file.

use bytes::Bytes;
use centroute_core::Isa;
use centroute_embed::{Table, onnx, table};

use crate::feed::{Feed, check_refusal};
use crate::made_onnx::Graph;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let file = if feed.byte() % 2 == 0 { feed.0.to_vec() } else { built(&mut feed) };
    match onnx::read_table(Bytes::from(file)) {
        Ok(Some(table)) => check_table(&table),
        Ok(None) => {}
        Err(error) => check_refusal(&error),
    }
}

/// The rows of a table have norm one or are nothing, on every instruction set.
pub fn check_table(table: &Table) {
    let n = table.n_token_ids() as u32;
    let ids: Vec<u32> = (0..n.min(40)).chain(n.saturating_sub(3)..n).collect();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let mut row = vec![f32::NAN; table.dim()];
        for ids in [&ids[..], &ids[..ids.len().min(1)], &[]] {
            table.embed(ids, isa, &mut table::Scratch::default(), &mut row);
            let norm: f32 = row.iter().map(|value| value * value).sum();
            assert!(norm == 0.0 || (norm - 1.0).abs() < 1e-4, "{isa:?}: norm {norm}");
        }
    }
}

fn built(feed: &mut Feed<'_>) -> Vec<u8> {
    let dim = 1 + feed.below(300);
    let n_rows = feed.below(40);
    let mut graph = Graph::new(feed.take(n_rows * dim), dim, feed.float());
    for _ in 0..feed.below(4) {
        match feed.byte() % 4 {
            0 => graph.row_shape[feed.below(2)] = i64::from_le_bytes(std::array::from_fn(|_| feed.byte())),
            1 => graph.scales.truncate(feed.below(8)),
            2 => graph.extra = feed.until(0).to_vec(),
            _ => graph.kind = feed.byte(),
        }
    }
    let mut file = graph.to_bytes();
    for _ in 0..feed.below(3) {
        let place = feed.below(file.len());
        file[place] = feed.byte();
    }
    file
}
