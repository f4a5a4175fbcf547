# docker build -t moeplan . && docker run --rm moeplan recommend --flops 1e22 --memory 80GB
# Continuous integration does not build this image. Files are read and written under /work: add -v "$PWD:/work".
FROM python:3.13-slim
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt '/src[plot]' && rm -rf /src
WORKDIR /work
ENTRYPOINT ["moeplan"]
