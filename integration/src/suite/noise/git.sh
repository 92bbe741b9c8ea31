# Repositories: made, cloned over the file system and the loopback, packed.
set -euo pipefail
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=init.defaultBranch GIT_CONFIG_VALUE_0=main
mkdir /srv/git && cd /srv/git
git init --quiet first && cd first
for number in $(seq 1 20); do
    echo "$number" > "file$number" && git add . && git commit --quiet -m "commit $number"
done
git checkout --quiet -b other && git rm --quiet file1 && git commit --quiet -m 'remove one'
git checkout --quiet main && git merge --quiet --no-edit other && git tag v1
cd .. && git clone --quiet first second && git clone --quiet --bare first third.git && git clone --quiet file:///srv/git/third.git fourth
git daemon --base-path=/srv/git --export-all --listen=127.0.0.1 --reuseaddr --detach
until git ls-remote --quiet git://127.0.0.1/third.git > /dev/null; do sleep 0.1; done
git clone --quiet git://127.0.0.1/third.git fifth
cd second && echo more >> file2 && git commit --quiet --all -m more && git push --quiet ../third.git main
git stash list && git log --oneline | wc -l && git gc --quiet && git fsck && git archive HEAD | tar -t > /dev/null
