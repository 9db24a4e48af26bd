# A small image that serves a model as an unprivileged user, with the CPU build of torch:
#
#     docker build -t graphmeta .
#     docker run --rm -p 8000:8000 -v "$PWD/out/shop:/model:ro" -e GRAPHMETA_TOKEN graphmeta
FROM python:3.11-slim AS build
RUN python -m venv /opt/graphmeta
ENV PATH=/opt/graphmeta/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY data/complete_journey data/complete_journey
COPY graphmeta graphmeta
RUN pip install --no-cache-dir -c constraints.txt '.[cli,serve]'

FROM python:3.11-slim
COPY --from=build /opt/graphmeta /opt/graphmeta
ENV PATH=/opt/graphmeta/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home graphmeta
USER 10001
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready')"]
ENTRYPOINT ["graphmeta", "serve", "/model", "--host", "0.0.0.0"]
