//! Miners.

use super::{Case, act};

pub const CASES: &[Case] = &[
    Case {
        behaviours: &[act("xmrig", "/usr/bin/xmrig nothing"), act("by-name", "xmrig nothing")],
        evasions: &[
            act("from-shell", "sh -c 'xmrig nothing; true'"),
            act("descriptor", "actor exec descriptor /usr/bin/xmrig nothing"),
            act("symlink", "sh -c 'ln -sf /usr/bin/xmrig /tmp/harmless; /tmp/harmless nothing'"),
            act("own-name", "actor exec plain --arg0 xmrig /usr/bin/not-xmrig nothing"),
            act("padded-name", "actor exec plain --arg0 /{longer}/xmrig /usr/bin/not-xmrig nothing"),
        ],
        near_misses: &[
            act("cat", "sh -c 'cat /usr/bin/xmrig >/dev/null'"),
            act("other-name", "/usr/bin/not-xmrig nothing"),
            act("argument", "actor nothing xmrig"),
            act("padded-argument", "actor nothing {longer} xmrig"),
            act("padded-other-name", "actor exec plain --arg0 /{longer}/not-xmrig /usr/bin/not-xmrig nothing"),
        ],
        ..Case::new("RF-801")
    },
    Case {
        behaviours: &[
            act("own-argument", "actor nothing -o stratum+tcp://pool.example:3333"),
            act("option", "actor nothing --url=stratum+tcp://pool.example:3333"),
            act("ssl", "actor nothing -o stratum+ssl://pool.example:443"),
            act("padded", "sh -c 'sleep 1; true {longer} stratum+tcp://pool.example:3333'"),
        ],
        evasions: &[
            act("shell", "sh -c 'true stratum+tcp://pool.example:3333'"),
            act("quoted", r#"sh -c 'true "stratum+tcp://pool.example:3333"'"#),
            act("far-back", "actor nothing a b c d e f g h i j k l m n o p stratum+tcp://pool.example:3333"),
            act("padded-short", "actor nothing {long} -o stratum+tcp://pool.example:3333"),
            act("padded-short-lived", "actor nothing {longer} -o stratum+tcp://pool.example:3333"),
            act("padded-by-much", "sh -c 'sleep 1; true {longest} stratum+tcp://pool.example:3333'"),
        ],
        near_misses: &[
            act("word", "actor nothing stratum"),
            act("tcp", "actor nothing tcp://pool.example:3333"),
            act("padded-tcp", "sh -c 'sleep 1; true {longer} tcp://pool.example:3333'"),
            act("padded-tcp-by-much", "sh -c 'sleep 1; true {longest} tcp://pool.example:3333'"),
            act("http", "actor nothing --url=http://pool.example:3333/stratum"),
        ],
        ..Case::new("RF-802")
    },
];
