//! Chooses the parent among clone sources, which `btrfs send -c` leaves to the program.

use sendshot_sys::subvolume::Info;

/// Chooses the clone source that becomes a snapshot's parent: of those that are snapshots of the same subvolume, or
/// are that subvolume, the one whose last change is closest in time. `None` if there is none.
pub fn best_parent<'a>(snapshot: &Info, sources: &'a [Info]) -> Option<&'a Info> {
    sources
        .iter()
        .filter(|source| is_relative(snapshot, source))
        .min_by_key(|source| source.ctransid.abs_diff(snapshot.ctransid))
}

fn is_relative(snapshot: &Info, source: &Info) -> bool {
    let of = snapshot.parent_uuid;
    source.id != snapshot.id && !of.is_nil() && (source.parent_uuid == of || source.uuid == of)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn snapshot(id: u64, of: u128, ctransid: u64) -> Info {
        Info {
            id,
            parent_id: 5,
            generation: ctransid,
            read_only: true,
            uuid: Uuid::from_u128(u128::from(id)),
            parent_uuid: Uuid::from_u128(of),
            received_uuid: Uuid::nil(),
            ctransid,
            otransid: ctransid,
            stransid: 0,
            rtransid: 0,
            otime: 0,
            rtime: 0,
        }
    }

    fn best(sources: &[Info]) -> Option<u64> {
        best_parent(&snapshot(300, 7, 50), sources).map(|source| source.id)
    }

    #[test]
    fn the_nearest_relative_is_the_parent() {
        let sources = [
            snapshot(301, 7, 20),
            snapshot(302, 7, 45),
            snapshot(303, 7, 60),
            snapshot(304, 8, 50),
        ];
        assert_eq!(best(&sources), Some(302));
        assert_eq!(best(&sources[..1]), Some(301));
    }

    #[test]
    fn the_subvolume_itself_is_a_relative() {
        let of = snapshot(7, 0, 49);
        assert_eq!(best(&[of]), Some(7));
    }

    #[test]
    fn strangers_and_the_snapshot_itself_are_no_parents() {
        assert_eq!(best(&[snapshot(304, 8, 50), snapshot(300, 7, 50)]), None);
        let orphans = [snapshot(301, 0, 20)];
        assert!(best_parent(&snapshot(300, 0, 50), &orphans).is_none());
    }
}
