//! Settings for the exchange of configurations.

use std::time::Duration;

use keyrink_recon::session::{FilterSet, Filters, Settings, TreeOffer};

pub(crate) const SKS: &str = "yminsky.dedup,yminsky.merge";
pub(crate) const HOCKEYPUCK: &str = "drop:UAT,drop:hardRevokedCruft,drop:implausible,drop:invalidSelfSig,\
    drop:oldSlhdsaSelfSig,drop:structuralMartian,drop:unbound,drop:unparseable,schema:application/pgp-keys,\
    versions:3+4+6+rfc9980,yminsky.dedup,yminsky.merge";

/// A node that offers these trees, each with the branches it leaves out behind a colon.
pub(crate) fn settings(trees: &[&str], filters: &str) -> Settings {
    let set = |filters: &str, dataset: &str| FilterSet {
        filters: filters.into(),
        dataset: dataset.into(),
    };
    let offer = |tree: &&str| {
        let (name, branches) = tree.split_once(':').unwrap_or((tree, ""));
        TreeOffer {
            name: name.into(),
            omission: branches.parse().unwrap(),
        }
    };
    Settings {
        http_port: 11371,
        version: None,
        trees: trees.iter().map(offer).collect(),
        first_tree: "openpgp/1".into(),
        realm: "openpgp".into(),
        filters: Filters {
            announced: filters.into(),
            dataset: if filters == HOCKEYPUCK { "hockeypuck" } else { "sks" }.into(),
            mirror: true,
            known: vec![
                set(SKS, "sks"),
                set("", "sks"),
                set("yminsky.dedup", "sks"),
                set(HOCKEYPUCK, "hockeypuck"),
            ],
        },
        dialect: None,
        busy: None,
        wanted: None,
        patience: Duration::from_secs(60),
    }
}
