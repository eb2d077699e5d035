//! Where a Go function was copied into its callers.
//!
//! A thin function of an SDK is often inlined, and a probe on its own body then misses those calls
//! without a word. Every function with inlined code carries a tree of what was inlined, 16 or 20
//! bytes a node; how many nodes it has is the largest index in one of its tables of values.

use super::{
    GoProgram,
    table::{Format, Values},
};
use crate::symbols::image::u32_at;

const PCDATA_INLINING: u32 = 2;
const FUNCDATA_INLINING: u8 = 3;
/// Values decoded at most; the largest real programs have a few million.
const MAX_STEPS: u64 = 32 << 20;
/// Names kept for a message.
const MAX_NAMES: usize = 3;

/// The functions that hold a copy of another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inlined {
    /// How many functions.
    pub count: usize,
    /// Some of their names.
    pub into: Vec<String>,
}

impl GoProgram<'_> {
    /// Which functions hold copies of those called `names` (as the table spells them), in that
    /// order. `None` where this program does not say (Go 1.17).
    pub(in crate::symbols) fn inlined(&self, names: &[&str]) -> Option<Vec<Inlined>> {
        let base = self.module.function_data?;
        let (node_len, name_at) = match self.table.format {
            Format::Go116 => return None,
            Format::Go118 => (20, 12),
            Format::Go120 => (16, 4),
        };
        let offsets: Vec<Option<u32>> = names.iter().map(|name| self.name_offset(name)).collect();
        let mut inlined = vec![Inlined::default(); names.len()];
        let mut steps = 0;
        for function in self.functions() {
            let Some(nodes) = self.node_count(&function.record, &mut steps) else { continue };
            if steps > MAX_STEPS {
                return None;
            }
            let Some(data) = function.record.funcdata(FUNCDATA_INLINING) else { continue };
            let address = base.checked_add(u64::from(data));
            let tree = address.and_then(|address| self.image.at(address, nodes * node_len));
            let nodes = tree.unwrap_or_default().chunks_exact(usize::try_from(node_len).ok()?);
            steps += nodes.len() as u64;
            let mut seen: Vec<Option<u32>> = nodes.map(|node| u32_at(node, name_at)).collect();
            seen.sort_unstable();
            for (offset, inlined) in offsets.iter().zip(&mut inlined) {
                if offset.is_some() && seen.binary_search(offset).is_ok() {
                    inlined.count += 1;
                    if inlined.into.len() < MAX_NAMES {
                        inlined.into.push(function.name.to_owned());
                    }
                }
            }
        }
        Some(inlined)
    }

    fn node_count(&self, record: &super::Record<'_>, steps: &mut u64) -> Option<u64> {
        let values = Values::new(self.table.line_programs(), record.pcdata(PCDATA_INLINING)?)?;
        let mut largest = -1;
        for (value, _) in values {
            *steps += 1;
            largest = largest.max(value);
            if *steps > MAX_STEPS {
                break;
            }
        }
        u64::try_from(largest + 1).ok().filter(|nodes| *nodes <= u64::from(u16::MAX) && *nodes > 0)
    }

    /// Where `name` is among the names; each is there once.
    fn name_offset(&self, name: &str) -> Option<u32> {
        let names = self.table.names();
        let text = [name.as_bytes(), &[0]].concat();
        let starts = |at: &usize| *at == 0 || names[at - 1] == 0;
        let at = memchr::memmem::find_iter(names, &text).find(starts)?;
        u32::try_from(at).ok()
    }
}
