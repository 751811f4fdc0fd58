//! Well-known images and their ports, which compose files rarely declare, e.g. for databases.

/// Image names without registry and tag, and the default ports of their programs.
const KNOWN: &[(&str, &[u16])] = &[
    ("adminer", &[8080]),
    ("caddy", &[80, 443]),
    ("cassandra", &[9042]),
    ("clickhouse-server", &[8123, 9000]),
    ("cockroach", &[26257, 8080]),
    ("couchdb", &[5984]),
    ("elasticsearch", &[9200, 9300]),
    ("grafana", &[3000]),
    ("httpd", &[80]),
    ("influxdb", &[8086]),
    ("kafka", &[9092]),
    ("keycloak", &[8080]),
    ("mailhog", &[1025, 8025]),
    ("mariadb", &[3306]),
    ("memcached", &[11211]),
    ("minio", &[9000]),
    ("mongo", &[27017]),
    ("mysql", &[3306]),
    ("nats", &[4222, 8222]),
    ("neo4j", &[7474, 7687]),
    ("nginx", &[80]),
    ("phpmyadmin", &[80]),
    ("postgis", &[5432]),
    ("postgres", &[5432]),
    ("postgresql", &[5432]),
    ("prometheus", &[9090]),
    ("rabbitmq", &[5672, 15672]),
    ("redis", &[6379]),
    ("solr", &[8983]),
    ("timescaledb", &[5432]),
    ("traefik", &[80]),
    ("valkey", &[6379]),
    ("wordpress", &[80]),
    ("zookeeper", &[2181]),
];

/// Default ports of an image; `None` if it is not known.
pub(super) fn ports(image: &str) -> Option<&'static [u16]> {
    let last = image.rsplit('/').next()?;
    let name = last.split([':', '@']).next()?;
    let known = KNOWN.iter().find(|(known, _)| *known == name)?;
    Some(known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_and_tag_do_not_matter() {
        for image in [
            "postgres",
            "postgres:16-alpine",
            "docker.io/library/postgres:16@sha256:00",
            "registry:5000/x/postgres",
        ] {
            assert_eq!(ports(image), Some(&[5432][..]), "{image}");
        }
        for image in ["", "mine", "postgres-exporter", "haproxy", "postgres/mine"] {
            assert_eq!(ports(image), None, "{image}");
        }
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(KNOWN.is_sorted_by(|a, b| a.0 < b.0));
    }
}
