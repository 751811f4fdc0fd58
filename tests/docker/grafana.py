# Stands in for Grafana, of which there is no image where no registry is reached: reads what is provisioned where the
# compose file puts it, asks the data source what the dashboards ask, and answers on Grafana's port: 200 when every query
# finds something, or 503 and what does not.

import glob
import http.server
import json
import os
import re
import urllib.parse
import urllib.request

PROVISIONING = "/etc/grafana/provisioning"


def field(text, name):
    return re.search(rf"\b{name}: *([^\s,}}]+)", text).group(1)


def read(pattern):
    texts = [open(path).read() for path in sorted(glob.glob(pattern))]
    if not texts:
        raise FileNotFoundError(pattern)
    return texts


def mistakes():
    sources = {field(text, "uid"): field(text, "url") for text in read(f"{PROVISIONING}/datasources/*.yaml")}
    folders = [field(text, "path") for text in read(f"{PROVISIONING}/dashboards/*.yaml")]
    json.load(open(os.environ["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]))
    for folder in folders:
        for text in read(f"{folder}/*.json"):
            for panel in json.loads(text)["panels"]:
                for target in panel["targets"]:
                    query = urllib.parse.urlencode({"query": target["expr"]})
                    source = sources[target["datasource"]["uid"]]
                    answer = json.load(urllib.request.urlopen(f"{source}/api/v1/query?{query}", timeout=5))
                    if not answer["data"]["result"]:
                        yield target["expr"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            found = list(mistakes())
        except Exception as error:
            found = [repr(error)]
        self.send_response(503 if found else 200)
        self.end_headers()
        self.wfile.write("\n".join(found).encode())


http.server.ThreadingHTTPServer(("", 3000), Handler).serve_forever()
