# Against an nginx that is the container's first program: pages, errors, load, a reload, logs rotated.
set -euo pipefail
until curl --silent --fail --output /dev/null http://127.0.0.1/; do sleep 0.1; done
head -c 2000000 /dev/urandom > /var/www/html/large
echo '<p>page</p>' > /var/www/html/page.html
cat > /etc/nginx/conf.d/proxy.conf <<'END'
server {
    listen 8080;
    location / { proxy_pass http://127.0.0.1:8000; }
    location /status { stub_status; }
}
END
python3 -m http.server --bind 127.0.0.1 --directory /var/www/html 8000 > /dev/null 2>&1 & backend=$!
nginx -t
nginx -s reload
until curl --silent --fail http://127.0.0.1:8080/page.html; do sleep 0.1; done
ab -q -n 3000 -c 20 http://127.0.0.1/page.html | grep 'Failed requests:        0'
ab -q -k -n 3000 -c 20 http://127.0.0.1/ > /dev/null
ab -q -n 200 -c 10 http://127.0.0.1:8080/page.html | grep 'Failed requests:        0'
curl --silent --fail http://127.0.0.1/large | cmp - /var/www/html/large
[ "$(curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1/none)" = 404 ]
curl --silent --fail --remote-name --output-dir /tmp http://127.0.0.1/large
curl --silent --connect-timeout 1 http://192.0.2.1/ || [ $? != 0 ]
curl --silent http://no-such-host.invalid/ || [ $? = 6 ]
logrotate --force /etc/logrotate.d/nginx
nginx -s reopen
ls /var/log/nginx
curl --silent --fail http://127.0.0.1:8080/status
kill "$backend"
