//! Cutting the recipients of a run into slices.

use std::ops::Range;

use relaypool_api::delivery_slice::{MAX_SLICE_BYTES, MAX_SLICE_ROWS, SliceRow};

use super::recipients::row_bytes;
use super::senders::SenderWeight;

/// Rows for one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceCut {
    /// The sender.
    pub sender: String,
    /// Places in the rows that are to be sent to.
    pub rows: Range<usize>,
}

/// Gives each sender one contiguous share of the rows in proportion to its weight, and cuts the shares into slices of at
/// most [`MAX_SLICE_ROWS`] rows and [`MAX_SLICE_BYTES`] bytes. Together the slices have every row once, in order.
pub fn cut(rows: &[SliceRow], senders: &[SenderWeight]) -> Vec<SliceCut> {
    let mut cuts = Vec::new();
    for (sender, share) in senders.iter().zip(shares(rows.len(), senders)) {
        let named = |rows| SliceCut {
            sender: sender.sender.clone(),
            rows,
        };
        cuts.extend(chunks(rows, share).map(named));
    }
    cuts
}

/// Contiguous shares of `total` rows, one for each sender, in proportion to their weights. The last ends at `total`.
fn shares(total: usize, senders: &[SenderWeight]) -> Vec<Range<usize>> {
    let all: u128 = senders.iter().map(|sender| u128::from(sender.weight)).sum();
    let mut before = 0_u128;
    let mut start = 0;
    senders
        .iter()
        .map(|sender| {
            before += u128::from(sender.weight);
            // `before` is at most `all`, so the quotient is at most `total` and fits.
            let end = (total as u128 * before / all.max(1)) as usize;
            let share = start..end;
            start = end;
            share
        })
        .collect()
}

/// Cuts a share into slices that are as long as the limits allow.
fn chunks(rows: &[SliceRow], share: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = share.start;
    std::iter::from_fn(move || {
        let start = at;
        let mut bytes = 2;
        while at < share.end && at - start < MAX_SLICE_ROWS {
            let with_comma = row_bytes(&rows[at]) + 1;
            // A row alone always fits, because the reader of the list ignores longer ones.
            if bytes + with_comma > MAX_SLICE_BYTES && at > start {
                break;
            }
            bytes += with_comma;
            at += 1;
        }
        (at > start).then_some(start..at)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use relaypool_api::delivery::Recipient;

    use super::*;

    fn rows(count: usize, variable_bytes: usize) -> Vec<SliceRow> {
        (0..count)
            .map(|index| SliceRow {
                index: index as u64,
                recipient: Recipient {
                    address: format!("r{index}@example.com"),
                    variables: BTreeMap::from([("text".to_owned(), "x".repeat(variable_bytes).into())]),
                },
            })
            .collect()
    }

    fn senders(weights: &[u64]) -> Vec<SenderWeight> {
        weights
            .iter()
            .enumerate()
            .map(|(ordinal, &weight)| SenderWeight {
                sender: format!("pool-{ordinal}"),
                weight,
            })
            .collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        let cuts = cut(&rows(1_100, 0), &senders(&[5, 5, 1]));
        let lengths: Vec<_> = cuts.iter().map(|cut| (cut.sender.as_str(), cut.rows.len())).collect();
        assert_eq!(lengths, [("pool-0", 500), ("pool-1", 500), ("pool-2", 100)]);
    }

    #[test]
    fn slices_are_bounded_by_rows_and_by_bytes() {
        let by_rows = cut(&rows(2_500, 0), &senders(&[1]));
        assert_eq!(
            by_rows.iter().map(|cut| cut.rows.len()).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );

        let large = rows(10, 200 * 1024);
        for cut in cut(&large, &senders(&[1])) {
            assert_eq!(cut.rows.len(), 2, "two of three 200 KiB rows fit into 512 KiB");
            assert!(serde_json::to_vec(&large[cut.rows]).unwrap().len() <= MAX_SLICE_BYTES);
        }
    }

    #[test]
    fn few_rows_leave_senders_without_a_slice() {
        let cuts = cut(&rows(1, 0), &senders(&[1, 1, 1]));
        assert_eq!(cuts.len(), 1);
        assert!(cut(&[], &senders(&[1, 1])).is_empty());
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_slice(
            count in 0_usize..3_000,
            weights in proptest::collection::vec(1_u64..1_000_000, 1..9),
        ) {
            let cuts = cut(&rows(count, 0), &senders(&weights));
            let mut expected = 0;
            for cut in cuts {
                prop_assert_eq!(cut.rows.start, expected);
                prop_assert!(!cut.rows.is_empty() && cut.rows.len() <= MAX_SLICE_ROWS);
                expected = cut.rows.end;
            }
            prop_assert_eq!(expected, count);
        }
    }
}
